"""Diagnosis: a cohort's patches through one model or several, thresholds, figures per patient, and a page for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.histology import Cohort, Density, read_histology
from normscan.data.read import read_image
from normscan.data.sample import Record
from normscan.deploy.session import SEEN_DIGITS, Session, load
from normscan.errors import InputError, UsageError
from normscan.files import check_free, csv_text, sha256, temporary_folder, write_bytes, write_json
from normscan.progress import say, track
from normscan.report.patients import SHOWN, Patch, Patient
from normscan.report.patients_page import write_patients
from normscan.report.pictures import eight_bit
from normscan.scoring import metrics
from normscan.scoring.diagnosis import (
    Diagnosis,
    Evidence,
    choose,
    cross_diagnose,
    summarise,
)
from normscan.scoring.diagnosis import (
    diagnose as diagnose_by,
)
from normscan.scoring.spec import Group, Pool
from normscan.scoring.thresholds import ThresholdFile, Thresholds

FILES = {"index.html", "metrics.json", "patients", "scores.csv", "scores_patients.csv", "thresholds.json"}
"""What a diagnosis leaves."""


@dataclass(frozen=True)
class Method:
    """A model under its name, and what it says of every patch of the patients that it has not seen."""

    name: str
    session: Session
    cropped: np.ndarray
    annotated: np.ndarray


def diagnose(
    models: Sequence[Path],
    data: Path,
    output: Path,
    *,
    rule: Pool = "fraction",
    thresholds: Path | None = None,
    batch_size: int = 16,
    device: str = "auto",
    threads: int = 0,
    seed: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Diagnose the patients of a cohort that no model has seen; write figures, tables, thresholds and pages.

    models      bundles or run folders; a patient's score is the mean of theirs
    rule        how patches become a patient's score: a pool of `Group`, or "fraction" (of positive patches)
    thresholds  of an earlier diagnosis with the same models; without, they are chosen on this cohort, and each patient
                is diagnosed by those that the other folds' patients chose

    Returns the figures. Raises `InputError` for a cohort that cannot be read or has too few patients of a kind, and for
    a patch that cannot be scored: a figure over the others would flatter.
    """
    check_free(output.absolute(), force=force or is_diagnosis(output), ours=is_diagnosis)
    given = None if thresholds is None else ThresholdFile.read(thresholds)
    sessions = _sessions(models, device=device, threads=threads)
    _check_models(sessions, given, thresholds)
    cohort, hashes = _unseen(read_histology(data), sessions.values(), given)
    methods = [_scored(name, session, cohort, batch_size) for name, session in _in_order(sessions, given)]
    evidence = {m.name: _evidence(m, cohort) for m in methods}
    if given is None:
        chosen = choose(evidence, cohort.patients, rule, seed=seed)
        diagnoses, folds = cross_diagnose(evidence, cohort.patients, rule, seed=seed)
    else:
        chosen, folds = given.thresholds, []
        diagnoses = diagnose_by(evidence, chosen)
    identities = {m.name: m.session.identity for m in methods}
    kept = given or ThresholdFile(chosen, identities, len(diagnoses), [h[:SEEN_DIGITS] for h in sorted(hashes)])
    found = {
        "rule": chosen.rule,
        "thresholds_from": "other folds" if given is None else "an earlier diagnosis",
        **summarise(diagnoses, cohort.patients),
        "patches": {name: _patch_figures(its) for name, its in evidence.items()},
        "thresholds": chosen.to_dict(),
        "engines": {m.name: m.session.engine.fingerprint() for m in methods},
    }
    with temporary_folder(output, force=force or is_diagnosis(output), ours=is_diagnosis) as folder:
        write_json(folder / "metrics.json", found)
        write_json(folder / "thresholds.json", kept.to_dict())
        write_bytes(folder / "scores.csv", _patch_table(methods, cohort, data).encode())
        write_bytes(folder / "scores_patients.csv", _patient_table(diagnoses, cohort.patients).encode())
        of = _by_patient(cohort)
        ranks = _ranks(methods)
        write_patients(
            folder,
            title=f"{' and '.join(evidence)}: {data.resolve().name}",
            metrics={**found, "how": _how(given, len(folds)), **_score_name(chosen.rule)},
            patients=[
                _patient(name, its, cohort, sorted(of[name], key=lambda i: -ranks[i]), methods, chosen, data)
                for name, its in diagnoses.items()
            ],
            thresholds=_as_shown(chosen, folds),
            map_scale=methods[0].session.map_scale if _has_map(methods[0].session) else None,
            provenance={
                "models": {m.name: m.session.identity for m in methods},
                "engines": found["engines"],
                "rule": str(chosen.rule),
                "patches": len(cohort.cropped),
                "annotated patches": len(cohort.annotated),
            },
        )
    return found


def is_diagnosis(folder: Path) -> bool:
    """An earlier diagnosis may be replaced: it can be made again from the models and the data."""
    return folder.is_dir() and {p.name for p in folder.iterdir()} <= FILES


def unseen(cohort: Cohort, seen: Iterable[str]) -> tuple[Cohort, set[str]]:
    """The cohort without every patient of whom a picture was seen, and the hashes of the pictures that stay.

    seen: the beginnings of content hashes.
    """
    known = frozenset(seen)
    hashes: defaultdict[str, set[str]] = defaultdict(set)
    records = cohort.records()
    for record in track(records, "hash", len(records)):
        hashes[str(record.group)].add(sha256(record.path)[:SEEN_DIGITS])
    fresh = {patient for patient in cohort.patients if known.isdisjoint(hashes[patient])}
    return cohort.of(fresh), {digest for patient in fresh for digest in hashes[patient]}


def _unseen(cohort: Cohort, sessions: Iterable[Session], given: ThresholdFile | None) -> tuple[Cohort, set[str]]:
    for line in cohort.unmatched.lines():
        say(line)
    seen = {digest for session in sessions for digest in session.seen} | set(given.seen if given else ())
    fresh, hashes = unseen(cohort, seen)
    if not fresh.cropped:
        raise InputError(
            f"all {len(cohort.patients)} patients of the cohort have trained the model or chosen its thresholds; "
            "expected some that have not"
        )
    say(f"{len(fresh.patients)} of {len(cohort.patients)} patients are new to the models: {len(fresh.cropped)} patches")
    return fresh, hashes


def _sessions(models: Sequence[Path], *, device: str, threads: int) -> dict[str, Session]:
    sessions: dict[str, Session] = {}
    for path in models:
        name = path.absolute().name.removesuffix(".normscan")
        if name in sessions:
            raise UsageError(f"two models are called {name}; rename one, their names head columns of the tables")
        sessions[name] = load(path, device=device, threads=threads)
    return sessions


def _check_models(sessions: Mapping[str, Session], given: ThresholdFile | None, path: Path | None) -> None:
    if given is None:
        return
    if sorted(given.models.values()) != sorted(session.identity for session in sessions.values()):
        raise UsageError(
            f"{path}: the thresholds are of {' and '.join(given.models)}, and these are other models, or others' "
            "trainings; name those, or choose thresholds anew"
        )


def _in_order(sessions: Mapping[str, Session], given: ThresholdFile | None) -> list[tuple[str, Session]]:
    """Methods by name; where thresholds are given, under the names that these use."""
    if given is None:
        return list(sessions.items())
    of = {session.identity: session for session in sessions.values()}
    return [(name, of[identity]) for name, identity in given.models.items()]


def _scored(name: str, session: Session, cohort: Cohort, batch_size: int) -> Method:
    records = [*cohort.cropped, *cohort.annotated]
    scores = np.empty(len(records))
    stream = session.stream([record.path for record in records], batch_size=batch_size)
    for i, (_, result) in enumerate(track(stream, f"score with {name}", len(records))):
        if isinstance(result, InputError):
            raise result
        scores[i] = result.score
    return Method(name, session, scores[: len(cohort.cropped)], scores[len(cohort.cropped) :])


def _evidence(method: Method, cohort: Cohort) -> Evidence:
    return Evidence(
        method.cropped,
        [str(r.group) for r in cohort.cropped],
        method.annotated,
        [int(r.label or 0) for r in cohort.annotated],
        [str(r.group) for r in cohort.annotated],
    )


def _patch_figures(evidence: Evidence) -> dict[str, Any]:
    """Of annotated patches; the interval is over patients, since a patient's patches are alike."""
    if len(set(evidence.labels)) < 2:
        return {"annotated": len(evidence.labels), "auroc": None, "auroc_ci": None}
    return {
        "annotated": len(evidence.labels),
        "auroc": metrics.auroc(evidence.labels, evidence.annotated),
        "auroc_ci": list(metrics.auroc_interval(evidence.labels, evidence.annotated, evidence.annotated_patients)),
    }


def _has_map(session: Session) -> bool:
    """Whether a patch's map says where, and is not one number all over."""
    return any(term.per != "vector" for term in session.scorer.spec.terms)


def _by_patient(cohort: Cohort) -> dict[str, list[int]]:
    """{patient: places of their patches}."""
    of: defaultdict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(cohort.cropped):
        of[str(record.group)].append(place)
    return of


def _ranks(methods: Sequence[Method]) -> np.ndarray:
    """How suspicious each patch is among all; several methods count alike, whatever their scores' unit."""
    ranks: np.ndarray = np.mean([np.argsort(np.argsort(m.cropped, kind="stable")) for m in methods], axis=0)
    return ranks


def _patient(
    name: str,
    its: Diagnosis,
    cohort: Cohort,
    ranked: Sequence[int],
    methods: Sequence[Method],
    thresholds: Thresholds,
    root: Path,
) -> Patient:
    """ranked: places of the patient's patches, the most suspicious first."""

    def patches() -> list[Patch]:
        return [_patch(cohort.cropped[i], i, methods, thresholds, root) for i in ranked[:SHOWN]]

    return Patient(
        name=name,
        truth=cohort.patients[name],
        diagnosis=_density(its.density),
        score=its.score,
        shares=its.shares,
        patches=len(ranked),
        fold=its.fold,
        most_suspicious=patches,
    )


def _patch(record: Record, place: int, methods: Sequence[Method], thresholds: Thresholds, root: Path) -> Patch:
    first = methods[0]
    pixels = read_image(record.path)
    patch = thresholds.patch.get(first.name)
    score = float(first.cropped[place])
    return Patch(
        name=record.path.relative_to(root).as_posix(),
        score=score,
        positive=None if patch is None else score > patch.median,
        image=eight_bit(pixels),
        map=first.session.score(pixels).map if _has_map(first.session) else None,
    )


def _density(found: str) -> Density:
    """Where no threshold tells low from high, every infected patient is called low."""
    return {"negative": "negative", "high": "high"}.get(found, "low")  # type: ignore[return-value]


def _as_shown(chosen: Thresholds, folds: Sequence[Thresholds]) -> dict[str, Any]:
    """The thresholds that are kept, and what they were in each outer fold."""
    found: dict[str, Any] = chosen.to_dict()
    if folds:
        for method in found["patch"]:
            found["patch"][method]["folds"] = [fold.patch[method].median for fold in folds]
        found["positive"]["folds"] = [fold.positive.median for fold in folds]
        if found["high"] is not None:
            found["high"]["folds"] = [None if fold.high is None else fold.high.median for fold in folds]
    return found


def _how(given: ThresholdFile | None, folds: int) -> str:
    if given is None:
        return f"Each patient was diagnosed by thresholds that the others chose, in {folds} folds of patients."
    return f"The thresholds were chosen before, on {given.patients} other patients."


def _score_name(rule: Pool) -> dict[str, str]:
    """What a patient's score is called where it is not the share of positive patches."""
    method, parameter = Group(rule).rule if rule != "fraction" else ("fraction", 0.0)
    named = {
        "max": "highest score of a patch",
        "mean": "mean score of the patches",
        "noisy_or": "chance that any patch is positive",
        "topk": f"mean score of the highest {parameter:.0%} of patches",
    }
    return {"score": named[method]} if method in named else {}


def _patch_table(methods: Sequence[Method], cohort: Cohort, root: Path) -> str:
    rows: list[Sequence[Any]] = [("file", "patient", "label", *(m.name for m in methods))]
    for i, record in enumerate(cohort.cropped):
        scores = (repr(float(m.cropped[i])) for m in methods)
        rows.append((record.path.relative_to(root).as_posix(), record.group, "", *scores))
    for i, record in enumerate(cohort.annotated):
        scores = (repr(float(m.annotated[i])) for m in methods)
        rows.append((record.path.relative_to(root).as_posix(), record.group, record.label, *scores))
    return csv_text(rows)


def _patient_table(diagnoses: Mapping[str, Diagnosis], truth: Mapping[str, Density]) -> str:
    methods = list(next(iter(diagnoses.values())).shares)
    rows: list[Sequence[Any]] = [("patient", "density", "diagnosis", "score", *methods, "fold")]
    for name, its in diagnoses.items():
        shares = (repr(its.shares[method]) for method in methods)
        fold = "" if its.fold is None else its.fold + 1
        rows.append((name, truth[name], its.density, repr(its.score), *shares, fold))
    return csv_text(rows)
