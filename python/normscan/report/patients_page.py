"""The report of patients: an index with verdict, plot and tables, and a page for each. No network, no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from normscan.data.histology import DENSITIES, Density
from normscan.files import temporary_folder, write_bytes
from normscan.report import plots, strips, words
from normscan.report.html import document, figures, origin, section, table
from normscan.report.patient_page import STYLE, Study, patient_page
from normscan.report.patients import (
    OTHER_DENSITY,
    WRONG,
    Patch,
    Patient,
    Told,
    called,
    levels,
    listed,
    outcome,
    sentences,
    telling,
)
from normscan.report.words import NONE, Metrics

__all__ = ["Patch", "Patient", "write_patients"]

_NAMED = 12  # wrong patients that the verdict names


def write_patients(
    folder: Path,
    *,
    title: str,
    metrics: Metrics,
    patients: Sequence[Patient],
    thresholds: Mapping[str, Any],
    map_scale: tuple[float, float] | None,
    provenance: Mapping[str, Any],
) -> Path:
    """Write `folder`/index.html and `folder`/patients/001.html, ... in the order of the index; return the index's path.

    metrics      all optional: "infected", "negative", "true_positive", "true_negative" (counts of patients); "auroc",
                 "sensitivity", "specificity", each with its interval as "..._ci"; "confusion" {truth: {diagnosis: n}};
                 "methods" {name: {"auroc", "auroc_ci"}}; "how", a sentence on how patients were diagnosed; "score",
                 what a patient's score is, where it is not the share of positive patches
    thresholds   "patch" {method: t}, "positive" t, "high" t or None; each t {"median", "folds" [one of each fold]}
    map_scale    (low, high) of the maps' colours; None: no map is shown
    provenance   any nesting of names and values

    Pages of an earlier report in `folder` are replaced. What is None or not finite is not spoken of.
    """
    metrics = words.defined(metrics)
    study = _study(title, metrics, patients, words.defined(thresholds), map_scale)
    sections = [
        _verdict(study, metrics),
        _separation(study, metrics),
        _methods(metrics),
        _thresholds(study),
        _patients(study),
        origin(words.defined(provenance)),
    ]
    index = folder / "index.html"
    with temporary_folder(folder / "patients", force=True, ours=_are_pages) as pages:
        for place in range(len(study.patients)):
            write_bytes(pages / study.file(place), patient_page(study, place).encode())
    write_bytes(index, document(title, "normscan patients", filter(None, sections), STYLE + _STYLE).encode())
    return index


def _study(
    title: str,
    metrics: Metrics,
    patients: Sequence[Patient],
    thresholds: Mapping[str, Any],
    map_scale: tuple[float, float] | None,
) -> Study:
    graded = thresholds.get("high") is not None or any(patient.diagnosis == "high" for patient in patients)
    return Study(
        title=title,
        patients=listed(patients, graded),
        thresholds=thresholds,
        graded=graded,
        along=_axis(metrics, patients, thresholds),
        map_scale=map_scale,
    )


def _are_pages(folder: Path) -> bool:
    """Whether a folder holds patients' pages and nothing else, which can be made again."""
    return all(path.stem.isdecimal() and path.suffix == ".html" for path in folder.iterdir())


def _axis(metrics: Metrics, patients: Sequence[Patient], thresholds: Mapping[str, Any]) -> strips.Axis | None:
    """One axis for all plots of the report: every score, and every threshold, those of folds included."""
    values = [patient.score for patient in patients if math.isfinite(patient.score)]
    if not values:
        return None
    for key in ("positive", "high"):
        given = thresholds.get(key) or {}
        values += [v for v in [given.get("median"), *(given.get("folds") or [])] if v is not None]
    return strips.axis(values, *telling(metrics, patients))


# ---- sections of the index ----------------------------------------------------------------------------------------


def _verdict(study: Study, metrics: Metrics) -> str:
    get = metrics.get
    found = words.share(get("true_positive"), get("infected"), "infected patients found")
    passed = words.share(get("true_negative"), get("negative"), "negative patients passed")
    shown = [
        ("AUROC, patients", words.number(get("auroc")), _interval(words.numbers(get("auroc_ci")))),
        ("Sensitivity", words.percent(get("sensitivity")), _interval(words.percents(get("sensitivity_ci")), found)),
        ("Specificity", words.percent(get("specificity")), _interval(words.percents(get("specificity_ci")), passed)),
    ]
    body = figures(shown) if any(value != NONE for _, value, _ in shown) else ""
    decided = bool(levels(study.thresholds)) or any(patient.diagnosis for patient in study.patients)
    said = "".join(f"<p>{escape(text)}</p>" for text in sentences(metrics, study.patients, decided))
    return section("Verdict", body + said + _named(study))


def _interval(bounds: str, counts: str = "") -> str:
    return "\n".join(filter(None, (counts, words.known("95 % interval {}", bounds)))) or "not defined"


def _named(study: Study) -> str:
    """The wrong patients by name, each leading to its page."""
    lines = []
    for became, title in (("missed", "Missed"), ("false alarm", "False alarms"), (OTHER_DENSITY, "Other density")):
        wrong = [i for i, patient in enumerate(study.patients) if outcome(patient, study.graded) == became]
        links = [_link(study, i) for i in wrong[:_NAMED]]
        if len(wrong) > _NAMED:
            links.append(f"and {len(wrong) - _NAMED} more")
        if wrong:
            lines.append(f"<div><dt>{title}</dt><dd>{', '.join(links)}</dd></div>")
    return f'<dl class="named">{"".join(lines)}</dl>' if lines else ""


def _separation(study: Study, metrics: Metrics) -> str:
    tally = _confusion(study, metrics.get("confusion") or {})
    if study.along is None:
        return section("Densities", tally) if tally else ""
    of: dict[Density | None, list[strips.Dot]] = {density: [] for density in (*DENSITIES, None)}
    for i, patient in enumerate(study.patients):
        if math.isfinite(patient.score):
            of[patient.truth].append(_dot(study, study.along, i))
    rows = [(called(density).capitalize() or "Unknown", dots) for density, dots in of.items() if dots]
    drawn = strips.strip(rows, levels(study.thresholds), study.along)
    known = any(density and dots for density, dots in of.items())
    said = "Each dot is a patient" + (", by what the table says." if known else ".")
    caption = f"<span>{said}</span>{_marks(study)}"
    figure = f'<figure class="strip">{drawn}<figcaption>{caption}</figcaption></figure>'
    return section("Separation", f'<div class="plots beside">{figure}{f"<div>{tally}</div>" if tally else ""}</div>')


def _dot(study: Study, along: strips.Axis, place: int) -> strips.Dot:
    patient = study.patients[place]
    said = [f"{patient.name}: {along.told(patient.score)}"]
    if patient.diagnosis is not None:
        said.append(f"diagnosed {called(patient.diagnosis, study.graded)}")
    href = f"patients/{study.file(place)}"
    return strips.Dot(patient.name, patient.score, _kind(study, patient), ", ".join(said), href)


def _marks(study: Study) -> str:
    """What the dots and lines mean, for those that are there."""
    kinds = {_kind(study, patient) for patient in study.patients}
    if any(level.folds for level in levels(study.thresholds)):
        kinds.add("folds")
    entries = {
        "right": "as the table says",
        "other": "found, with another density",
        "wrong": "missed or false alarm",
        "untold": "nothing to compare with",
        "folds": "where a threshold lay in the folds",
    }
    return "".join(
        f'<span class="mark"><svg class="plot" viewBox="0 0 14 14" aria-hidden="true">{_mark(kind)}</svg>{text}</span>'
        for kind, text in entries.items()
        if kind in kinds and len(kinds) > 1
    )


def _mark(kind: str) -> str:
    if kind == "folds":
        return '<rect class="folds" x="2" y="0" width="10" height="14"/>'
    return f'<circle class="{kind}" cx="7" cy="7" r="5"/>'


def _confusion(study: Study, given: Mapping[str, Mapping[str, int]]) -> str:
    """Three densities against three diagnoses, or two where high densities are not told."""
    columns: list[tuple[str, Density]] = [("negative", "negative"), ("infected", "low")]
    if study.graded:
        columns[1:] = [("low", "low"), ("high", "high")]
    body = []
    for truth in DENSITIES:
        if not given.get(truth):
            continue
        cells = []
        for _, diagnosis in columns:
            count = given[truth].get(diagnosis) or 0
            wrong = (diagnosis == "negative") != (truth == "negative")
            right = truth == diagnosis or not (wrong or study.graded)
            kind = "right" if right else "missed" if wrong and count else "off"
            cells.append(f'<span class="{kind}">{count}</span>')
        body.append([called(truth).capitalize(), *cells])
    if not body:
        return ""
    head = ("The table says", *(f"Diagnosed {name}" for name, _ in columns))
    return table("Patients by what the table says and what was diagnosed", head, body)


def _patients(study: Study) -> str:
    """All patients, a line each; columns that would be empty are left out."""
    everyone = study.patients
    if not everyone:
        return ""
    methods = list(dict.fromkeys(name for patient in everyone for name in patient.shares))
    methods = methods if any(len(patient.shares) > 1 for patient in everyone) else []
    label = study.along.label if study.along else "score"
    columns = [
        ("The table says", [called(patient.truth) for patient in everyone]),
        ("Diagnosed", [called(patient.diagnosis, study.graded) for patient in everyone]),
        ("Outcome", [_outcome(study, patient) for patient in everyone]),
        (label[:1].upper() + label[1:], [_scored(study, patient) for patient in everyone]),
        *((name, [_told(study, patient.shares.get(name, math.nan)) for patient in everyone]) for name in methods),
        ("Patches", [str(patient.patches) for patient in everyone]),
        ("Fold", ["" if patient.fold is None else str(patient.fold + 1) for patient in everyone]),
    ]
    kept = [(name, column) for name, column in columns if any(column)]
    body = [[_link(study, i), *(column[i] or NONE for _, column in kept)] for i in range(len(everyone))]
    head = ("Patient", *(escape(name) for name, _ in kept))
    wrong = any(outcome(patient, study.graded) in (*WRONG, OTHER_DENSITY) for patient in everyone)
    order = "Wrong diagnoses first, then by score" if wrong else "By score, the highest first"
    intro = f"<p>{order}. A name leads to the patient's page.</p>"
    return section("Patients", intro + table("All patients", head, body))


def _thresholds(study: Study) -> str:
    """How the thresholds came about: the median, and how far they went from fold to fold."""
    given = study.thresholds
    told: Told = study.along.told if study.along else words.score
    patch = given.get("patch") or {}
    lines: list[tuple[str, Any, Told]] = [(f"A patch is positive, {name}", patch[name], words.score) for name in patch]
    lines += [("A patient is infected", given.get("positive"), told), ("The density is high", given.get("high"), told)]
    body = []
    for name, threshold, write in lines:
        median = (threshold or {}).get("median")
        folds = [value for value in (threshold or {}).get("folds") or [] if value is not None]
        if median is not None:
            span = f"{write(min(folds))} to {write(max(folds))}" if folds else ""
            body.append([escape(name), write(median), span, str(len(folds) or "")])
    if not body:
        return ""
    head = ["Decides that", "Above", "From fold to fold", "Folds"]
    whence = "<p>Each is the median over the folds; the range says how much it depends on the patients at hand.</p>"
    if not any(count for *_, count in body):
        head, body, whence = head[:2], [row[:2] for row in body], ""
    return section("Thresholds", whence + table("Thresholds in use", head, body))


def _methods(metrics: Metrics) -> str:
    lines = [
        [
            escape(name),
            words.number(given["auroc"]),
            words.numbers(given.get("auroc_ci")),
            plots.whisker(given["auroc"], given.get("auroc_ci")),
        ]
        for name, given in (metrics.get("methods") or {}).items()
        if given and given.get("auroc") is not None
    ]
    intro = "<p>How well each method alone ranks the same patients. The dashed line is chance.</p>"
    head = ("Method", "AUROC, patients", "95 % interval", "From 0 to 1")
    return section("Methods", intro + table("Methods, each alone", head, lines)) if lines else ""


# ---- parts --------------------------------------------------------------------------------------------------------


def _link(study: Study, place: int) -> str:
    return f'<a href="patients/{study.file(place)}">{escape(study.patients[place].name)}</a>'


def _outcome(study: Study, patient: Patient) -> str:
    became = outcome(patient, study.graded)
    return f'<span class="missed">{became}</span>' if became in WRONG else became


def _kind(study: Study, patient: Patient) -> str:
    """The class of a patient's dot."""
    became = outcome(patient, study.graded)
    return {"": "untold", "found": "right", "passed": "right", OTHER_DENSITY: "other"}.get(became, "wrong")


def _scored(study: Study, patient: Patient) -> str:
    """The score, drawn between the thresholds that diagnosed the patient, and in numbers."""
    if study.along is None or not math.isfinite(patient.score):
        return ""
    drawn = strips.meter(patient.score, _kind(study, patient), levels(study.thresholds, patient.fold), study.along)
    return f'<span class="scored">{drawn}{study.along.told(patient.score)}</span>'


def _told(study: Study, value: float) -> str:
    if not math.isfinite(value):
        return ""
    return study.along.told(value) if study.along else words.score(value)


_STYLE = """
.beside{grid-template-columns:minmax(0,1.75fr) minmax(0,1fr)}
.strip figcaption{display:flex;flex-wrap:wrap;gap:.15rem 1.1rem}
.strip figcaption>span:first-child{flex-basis:100%}
.mark{display:inline-flex;align-items:center;gap:.45rem}
.mark .plot{width:.9rem;flex:none}
.named{margin:1.2rem 0 0;display:grid;gap:.3rem}
.named div{display:grid;grid-template-columns:8rem 1fr}
.named dt{color:var(--soft)}
.named dd{margin:0;overflow-wrap:anywhere}
.beside td,.beside th{padding-right:.75rem}
.beside tbody th{white-space:nowrap}
.beside td .right{font-weight:650}
.off{color:var(--soft)}
.figures dd{white-space:pre-line}
.patients td{white-space:nowrap}
.patients th:first-child{position:sticky;left:0;background:var(--paper);overflow-wrap:anywhere;min-width:5rem;
max-width:18rem}
.scored{display:inline-flex;align-items:center;gap:.6rem}
.meter{width:7rem;flex:none}
.meter .track{stroke:var(--line);stroke-width:3;stroke-linecap:round}
.plot.meter .threshold{stroke-dasharray:none}
.meter .wrong{stroke-width:2}
@media (max-width:48rem){.beside{grid-template-columns:1fr}}
@media print{.patients table{font-size:8.5pt}.patients td{white-space:normal}.meter{display:none}
.patients th,.patients td{padding:.25rem .6rem .25rem 0}.patients th:first-child{position:static}}
"""
