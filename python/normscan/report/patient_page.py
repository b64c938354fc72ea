"""One patient's page: the diagnosis, the score between the thresholds, and the most suspicious patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from normscan.report import pictures, strips, words
from normscan.report.html import document, figures, section, table
from normscan.report.patients import (
    SHARE,
    SHOWN,
    WRONG,
    Patch,
    Patient,
    called,
    folds_of,
    levels,
    outcome,
    story,
)


@dataclass(frozen=True, slots=True)
class Study:
    """What all patients' pages share.

    patients    in the order of the index, which is that of their pages
    graded      whether diagnoses tell low from high density
    along       the axis of patients' scores; None where no patient has one
    map_scale   (low, high) of the colours of all maps; None where there are no maps
    """

    title: str
    patients: Sequence[Patient]
    thresholds: Mapping[str, Any]
    graded: bool
    along: strips.Axis | None
    map_scale: tuple[float, float] | None

    def file(self, place: int) -> str:
        """The name of a patient's page: a number, since names of patients do not belong into names of files."""
        return f"{place + 1:0{max(3, len(str(len(self.patients))))}d}.html"


def patient_page(study: Study, place: int) -> str:
    """The whole page, as HTML, of the patient at that place of the index."""
    patient = study.patients[place]
    sections = [
        _walk(study, place, "Patients"),
        _diagnosis(study, patient),
        _methods(study, patient),
        _patches(study, patient),
        _walk(study, place, "Patients, again"),
    ]
    kind = f"{study.title} \N{MIDDLE DOT} patient {place + 1} of {len(study.patients)}"
    return document(patient.name, kind, filter(None, sections), STYLE)


def _walk(study: Study, place: int, label: str) -> str:
    """Links to the patients before and after, in the order of the index, and to the index."""
    links = ["<span></span>", '<a href="../index.html">All patients</a>', "<span></span>"]
    for slot, other, rel, text in ((0, place - 1, "prev", "\N{LEFTWARDS ARROW} {}"), (2, place + 1, "next", "{} →")):
        if 0 <= other < len(study.patients):
            name = escape(study.patients[other].name)
            links[slot] = f'<a rel="{rel}" href="{study.file(other)}">{text.format(name)}</a>'
    return f'<nav class="walk" aria-label="{label}">{"".join(links)}</nav>'


def _diagnosis(study: Study, patient: Patient) -> str:
    own = levels(study.thresholds, patient.fold)
    scored = f"{patient.patches} patches scored" if patient.patches != 1 else "1 patch scored"
    became = outcome(patient, study.graded)
    note = "as the table says" if became in ("found", "passed") else became
    shown = [
        ("Diagnosed", called(patient.diagnosis, study.graded), note),
        ("The table says", called(patient.truth), ""),
        (_first_capital(study.along.label if study.along else "score"), _told(study, patient.score), scored),
    ]
    body = figures((name, _first_capital(value), note) for name, value, note in shown if value)
    said = " ".join(story(patient, study.graded, bool(own) or patient.diagnosis is not None))
    body = f'<div class="{"not-right" if became in WRONG else "told"}">{body}<p>{escape(said)}</p></div>'
    if study.along is not None and math.isfinite(patient.score):
        body += _gauge(study, study.along, patient, own)
    return section("Diagnosis", body)


def _gauge(study: Study, along: strips.Axis, patient: Patient, own: Sequence[strips.Level]) -> str:
    others = [p for p in study.patients if p is not patient and math.isfinite(p.score)]
    infected = [p.score for p in others if p.truth in ("low", "high")]
    negative = [p.score for p in others if p.truth == "negative"]
    kinds = (("infected", infected), ("negative", negative))
    if not infected and not negative:
        kinds = (("", []), ("others", [p.score for p in others]))
    told = []
    if infected or negative:
        told.append(
            "The other patients as bars, longer where there are more: infected above the line, negative below it."
        )
    elif others:
        told.append("The other patients as bars, longer where there are more.")
    if own:
        told.append(_whence(study, patient))
    drawn = strips.gauge(patient.score, own, along, *kinds)
    note = f"<figcaption>{' '.join(told)}</figcaption>" if told else ""
    return f'<div class="plots one"><figure class="strip">{drawn}{note}</figure></div>'


def _whence(study: Study, patient: Patient) -> str:
    """Whose thresholds those of the drawing are."""
    if patient.fold is None:
        return "The thresholds come from elsewhere."
    folds = folds_of(study.thresholds.get("positive"))
    if patient.fold < len(folds) and folds[patient.fold] is not None:
        return f"The thresholds are those of fold {patient.fold + 1}, chosen without this patient."
    return f"The thresholds drawn are medians over the folds; this patient was diagnosed in fold {patient.fold + 1}."


def _methods(study: Study, patient: Patient) -> str:
    """Scores by method, where several were combined."""
    if len(patient.shares) < 2:
        return ""
    shares = study.along is None or study.along.label == SHARE
    inside = all(0 <= value <= 1 for value in patient.shares.values() if math.isfinite(value))
    body = []
    for method, value in patient.shares.items():
        told = words.percent(value) if shares and inside and math.isfinite(value) else words.score(value)
        median = ((study.thresholds.get("patch") or {}).get(method) or {}).get("median")
        body.append([escape(method), told, words.score(median)])
    head = ("Method", _first_capital(SHARE if shares and inside else "score"), "A patch is positive above")
    return section("Methods", table("What each method says of this patient", head, body))


def _patches(study: Study, patient: Patient) -> str:
    shown = patient.most_suspicious()[:SHOWN]
    if not shown:
        return section("Patches", "<p>No patch is shown for this patient.</p>")
    intro = "<p>One patch is shown.</p>"
    if len(shown) > 1:
        intro = f"<p>The {len(shown)} most suspicious of {patient.patches} patches, highest score first.</p>"
    bar = ""
    if study.map_scale is not None and any(patch.map is not None for patch in shown):
        low, high = study.map_scale
        bar = (
            f'<p class="scale">{low:.3g}<span class="bar" style="background:{pictures.gradient()}"></span>'
            f"{high:.3g}<span>one scale for the maps of all patients</span></p>"
        )
    alone = "" if bar else " alone"
    cards = "".join(_card(patch, study.map_scale) for patch in shown)
    return section("Patches", f'{intro}{bar}<ul class="gallery{alone}">{cards}</ul>')


def _card(patch: Patch, scale: tuple[float, float] | None) -> str:
    verdict = {True: "positive", False: "below the threshold", None: ""}[patch.positive]
    images = "".join(
        f'<img loading="lazy" src="{pictures.data_uri(picture)}" '
        f'alt="{escape(", ".join(filter(None, (f"{patch.name}: {part}", verdict))))}">'
        for part, picture in _panes(patch, scale)
    )
    return (
        f'<li class="{"positive" if patch.positive else "plain"}"><figure><div class="panes">{images}</div><figcaption>'
        f'<span class="outcome">{verdict}</span><span class="score">{words.score(patch.score)}</span>'
        f'<span class="path">{escape(patch.name)}</span></figcaption></figure></li>'
    )


def _panes(patch: Patch, scale: tuple[float, float] | None) -> Iterator[tuple[str, pictures.Picture]]:
    yield "image", patch.image
    if patch.map is not None and scale is not None:
        yield "map", pictures.heat(patch.map, *scale)
        yield "overlay", pictures.overlay(patch.image, patch.map, *scale)


def _told(study: Study, value: float) -> str:
    return study.along.told(value) if study.along is not None and math.isfinite(value) else words.NONE


def _first_capital(text: str) -> str:
    return text[:1].upper() + text[1:]


STYLE = """
:root{--wrong:#a8321f}
@media (prefers-color-scheme:dark){:root{--wrong:#ff9a85}}
a{color:var(--accent);text-underline-offset:.2em}
.missed,.not-right p{color:var(--wrong);font-weight:600}
.not-right .figures div:first-child .big{color:var(--wrong)}
.plots.one{max-width:46rem}
.walk{display:grid;grid-template-columns:1fr auto 1fr;gap:1rem;margin:1.5rem 0 -1rem;font-size:.9375rem}
main>.walk:last-child{margin:0 0 2rem}
.walk a{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;min-width:0}
.walk :last-child{text-align:right}
.gallery{grid-template-columns:repeat(auto-fill,minmax(min(100%,28rem),1fr))}
.gallery.alone{grid-template-columns:repeat(auto-fill,minmax(min(100%,14rem),1fr))}
.alone .panes{grid-template-columns:1fr}
.gallery .positive .outcome{color:var(--accent);font-weight:650}
.gallery .plain .outcome{color:var(--soft)}
.plot text{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
.plot .name,.plot .who,.plot .value{fill:var(--ink)}
.plot .value{font-size:1.35em;font-weight:650}
.plot .folds{fill:var(--plain);opacity:.22}
.plot .over{stroke:var(--accent);stroke-width:3;opacity:.55}
.plot .below{stroke:var(--soft);stroke-width:3;opacity:.55}
.plot .this{fill:var(--accent);stroke:var(--card);stroke-width:2.5}
.plot .right{fill:var(--accent);fill-opacity:.45;stroke:var(--accent)}
.plot .untold{fill:var(--plain);fill-opacity:.6;stroke:var(--soft)}
.plot .other{fill:var(--card);stroke:var(--accent);stroke-width:2}
.plot .wrong{fill:var(--card);stroke:var(--wrong);stroke-width:3}
.plot .small{stroke-width:1.5}
.plot .small.right{stroke:none;fill-opacity:.75}
.plot a:hover circle{fill:var(--ink)}
@media (max-width:40rem){.strip .plot{font-size:17px}.strip .who{display:none}}
@media print{:root{--wrong:#a8321f}.walk{display:none}.gallery{grid-template-columns:1fr 1fr}}
"""
