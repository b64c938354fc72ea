"""From the scores of a patient's patches to a diagnosis: negative, low or high density of bacteria.

A patient's score is what `Group` makes of the patches' scores, usually the share of those above a *patch threshold*. A
patient is positive above a second threshold, and of high density above a third. Each is chosen by grouped k-fold: for
every fold the point of the ROC curve of all other patients that lies nearest to (0, 1), and of the folds' thresholds
the median (not the last fold's, which would be an accident of the order). What is measured on the patients that chose
the thresholds would flatter, so that `cross_diagnose` repeats the whole choice without each fold in turn.

Sources: arXiv 2309.16053 and 2412.13857; the folds of the source divide patients, ours never do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan import _native
from normscan.data.histology import DENSITIES, Density
from normscan.errors import ArgumentError, InputError
from normscan.scoring import metrics
from normscan.scoring.calibrate import clopper_pearson
from normscan.scoring.spec import Group, Pool
from normscan.scoring.thresholds import Threshold, Thresholds, choose_threshold, folds_of, pooled

Array = npt.NDArray[np.float64]

PATCH_FOLDS, PATIENT_FOLDS = 10, 8
"""The source's numbers of folds."""


@dataclass(frozen=True)
class Evidence:
    """One method's scores of a cohort's patches, higher is more suspicious."""

    scores: Array
    """[N]: of the patches that patients are diagnosed by."""
    patients: Sequence[str]
    """[N]"""
    annotated: Array = field(default_factory=lambda: np.zeros(0))
    """[M]: of patches that a pathologist has looked at."""
    labels: Sequence[int] = ()
    """[M]: 1 bacteria, 0 none."""
    annotated_patients: Sequence[str] = ()
    """[M]"""

    def of(self, patients: Collection[str]) -> Evidence:
        """What belongs to these patients."""
        inside = np.array([name in patients for name in self.patients], bool)
        looked = np.array([name in patients for name in self.annotated_patients], bool)
        return Evidence(
            self.scores[inside],
            [name for name in self.patients if name in patients],
            self.annotated[looked],
            [label for label, keep in zip(self.labels, looked, strict=True) if keep],
            [name for name in self.annotated_patients if name in patients],
        )


@dataclass(frozen=True)
class Diagnosis:
    """Of one patient."""

    score: float
    shares: Mapping[str, float]
    """Each method's score; the patient's is their mean."""
    density: str
    fold: int | None
    """The fold whose patients chose nothing of this; None: thresholds that were given."""


def patient_scores(
    evidence: Mapping[str, Evidence], rule: Pool, patch: Mapping[str, Threshold]
) -> dict[str, dict[str, float]]:
    """{patient: {method: score}}."""
    found: dict[str, dict[str, float]] = {}
    for method, its in evidence.items():
        for patient, score in _aggregated(its, pooled(rule, patch.get(method))).items():
            found.setdefault(patient, {})[method] = score
    return {patient: found[patient] for patient in sorted(found)}


def choose(
    evidence: Mapping[str, Evidence], densities: Mapping[str, Density], rule: Pool, *, seed: int = 0
) -> Thresholds:
    """All thresholds from all of these patients; one method or several, whose scores count alike.

    rule  of `Group`; "fraction" takes a patch threshold for each method, from its annotated patches
    Raises InputError where annotated patches, or one kind of patient, are missing.
    """
    patch: dict[str, Threshold] = {}
    if rule == "fraction":
        for method, its in evidence.items():
            strata = {name: str(densities[name]) for name in its.annotated_patients}
            if not strata:
                raise InputError(
                    f"{method}: the cohort has no annotated patches for a patch threshold; take another rule than "
                    "fraction, such as topk:0.1"
                )
            folds = folds_of(strata, PATCH_FOLDS, seed=seed)
            patch[method] = choose_threshold(
                its.labels, its.annotated, its.annotated_patients, folds, f"patch threshold of {method}"
            )
    scores = {name: _mean(each) for name, each in patient_scores(evidence, rule, patch).items()}
    positive = _of_patients(scores, densities, lambda density: int(density != "negative"), seed, "patient threshold")
    infected = {name: score for name, score in scores.items() if densities[name] != "negative"}
    high = None
    if len({densities[name] for name in infected}) == 2 and min(_counts(infected, densities)) >= 2:
        high = _of_patients(infected, densities, lambda density: int(density == "high"), seed, "density threshold")
        high = Threshold(max(high.median, positive.median), high.folds)
    return Thresholds(rule, patch, positive, high)


def diagnose(
    evidence: Mapping[str, Evidence], thresholds: Thresholds, *, fold: int | None = None
) -> dict[str, Diagnosis]:
    """Every patient by thresholds that are there already."""
    found = {}
    for patient, shares in patient_scores(evidence, thresholds.rule, thresholds.patch).items():
        score = _mean(shares)
        found[patient] = Diagnosis(score, shares, thresholds.density(score), fold)
    return found


def cross_diagnose(
    evidence: Mapping[str, Evidence],
    densities: Mapping[str, Density],
    rule: Pool,
    *,
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, count: None,
) -> tuple[dict[str, Diagnosis], list[Thresholds]]:
    """Every patient by thresholds that all other folds chose, and each fold's: these diagnoses flatter nobody."""
    known = {name: str(densities[name]) for its in evidence.values() for name in its.patients}
    folds = folds_of(known, PATIENT_FOLDS, seed=seed)
    found: dict[str, Diagnosis] = {}
    each: list[Thresholds] = []
    for number, fold in enumerate(folds):
        others = known.keys() - set(fold)
        chosen = choose({m: its.of(others) for m, its in evidence.items()}, densities, rule, seed=seed)
        each.append(chosen)
        found |= diagnose({m: its.of(set(fold)) for m, its in evidence.items()}, chosen, fold=number)
        told(number + 1, len(folds))
    return dict(sorted(found.items())), each


def summarise(diagnoses: Mapping[str, Diagnosis], densities: Mapping[str, Density]) -> dict[str, Any]:
    """Figures per patient, ready for JSON: AUROC (DeLong), sensitivity, specificity (Clopper-Pearson), the confusion.

    A patient counts once, and each is independent of the others. What is undefined is None.
    """
    names = list(diagnoses)
    labels = [int(densities[name] != "negative") for name in names]
    infected = sum(labels)
    calls = [diagnoses[name].density != "negative" for name in names]
    true_positive = sum(call and bool(label) for call, label in zip(calls, labels, strict=True))
    true_negative = sum(not call and not label for call, label in zip(calls, labels, strict=True))
    methods = list(diagnoses[names[0]].shares) if names else []
    return {
        "patients": len(names),
        "infected": infected,
        "negative": len(names) - infected,
        **_area(labels, [diagnoses[name].score for name in names]),
        **_share("sensitivity", true_positive, infected),
        **_share("specificity", true_negative, len(names) - infected),
        "true_positive": true_positive,
        "true_negative": true_negative,
        "confusion": {
            truth: {
                density: sum(densities[n] == truth and diagnoses[n].density == density for n in names)
                for density in sorted({*DENSITIES, *(diagnoses[n].density for n in names)}, key=_order)
            }
            for truth in DENSITIES
        },
        "methods": {m: _area(labels, [diagnoses[name].shares[m] for name in names]) for m in methods},
    }


def _order(density: str) -> int:
    return ("negative", "low", "high", "positive").index(density)


def _aggregated(evidence: Evidence, rule: Pool) -> dict[str, float]:
    names, index = np.unique(np.asarray(evidence.patients), return_inverse=True)
    out = np.empty(len(names), np.float64)
    method, parameter = Group(rule).rule
    _native.aggregate(evidence.scores, index.astype(np.int64), out, method=method, parameter=parameter)
    return dict(zip(names.tolist(), out.tolist(), strict=True))


def _of_patients(
    scores: Mapping[str, float],
    densities: Mapping[str, Density],
    label: Callable[[Density], int],
    seed: int,
    what: str,
) -> Threshold:
    names = list(scores)
    folds = folds_of({name: str(densities[name]) for name in names}, PATIENT_FOLDS, seed=seed)
    labels = [label(densities[name]) for name in names]
    return choose_threshold(labels, np.array([scores[name] for name in names]), names, folds, what)


def _counts(names: Collection[str], densities: Mapping[str, Density]) -> list[int]:
    return [sum(densities[name] == density for name in names) for density in ("low", "high")]


def _mean(shares: Mapping[str, float]) -> float:
    return float(np.mean(list(shares.values())))


def _area(labels: Sequence[int], scores: Sequence[float]) -> dict[str, Any]:
    try:
        return {"auroc": metrics.auroc(labels, scores), "auroc_ci": list(metrics.delong_interval(labels, scores))}
    except ArgumentError:  # a class is missing, or has one patient
        both = len(set(labels)) == 2
        return {"auroc": metrics.auroc(labels, scores) if both else None, "auroc_ci": None}


def _share(name: str, count: int, of: int) -> dict[str, Any]:
    if not of:
        return {name: None, f"{name}_ci": None}
    return {name: count / of, f"{name}_ci": list(clopper_pearson(count, of))}
