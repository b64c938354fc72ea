"""Thresholds that a cohort of patients chooses: how one is found, and the file that keeps them.

Each is chosen by grouped k-fold: for every fold the point of the ROC curve of all other patients that lies nearest to
(0, 1), and of the folds' thresholds the median. Sources: as `normscan.scoring.diagnosis`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from normscan.errors import InputError
from normscan.files import read_json
from normscan.scoring import metrics
from normscan.scoring.spec import Group, Pool

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Threshold:
    """Chosen fold by fold; what is used is the median."""

    median: float
    folds: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"median": self.median, "folds": list(self.folds)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse."""
        return cls(float(value["median"]), tuple(float(fold) for fold in value["folds"]))


@dataclass(frozen=True)
class Thresholds:
    """All that a diagnosis takes; positive and high iff score > threshold."""

    rule: Pool
    """How a patient's patches become a score: a pool of `Group`, or "fraction" alone, each method's with its own."""
    patch: Mapping[str, Threshold]
    """By method; empty where the rule is no fraction."""
    positive: Threshold
    high: Threshold | None
    """None where the cohort lacks one of the two densities."""

    def density(self, score: float) -> str:
        """What a patient's score says."""
        return str(Group("mean", self.positive.median, self._high).density(score))

    def group(self, method: str) -> Group:
        """The rule of a scoring spec, for one method alone."""
        return Group(pooled(self.rule, self.patch.get(method)), self.positive.median, self._high)

    @property
    def _high(self) -> float | None:
        return None if self.high is None else self.high.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rule": self.rule,
            "patch": {method: its.to_dict() for method, its in self.patch.items()},
            "positive": self.positive.to_dict(),
            "high": None if self.high is None else self.high.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse; KeyError, TypeError or ValueError where something is missing or of another kind."""
        patch = {str(method): Threshold.from_dict(its) for method, its in value["patch"].items()}
        high = value["high"]
        return cls(
            value["rule"],
            patch,
            Threshold.from_dict(value["positive"]),
            None if high is None else Threshold.from_dict(high),
        )


@dataclass(frozen=True)
class ThresholdFile:
    """What `normscan diagnose` leaves for the next patients: thresholds, and what they are good for."""

    thresholds: Thresholds
    models: Mapping[str, str]
    """Identity of each method's model (`Session.identity`): thresholds are of its scores and no other's."""
    patients: int
    """That chose the thresholds."""
    seen: Sequence[str]
    """Beginnings of the content hashes of their pictures: none of them may test the thresholds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        its = {"models": dict(self.models), "patients": self.patients, "seen": list(self.seen)}
        return {"schema": 1, **self.thresholds.to_dict(), **its}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `normscan diagnose` wrote; an InputError where it is none."""
        value = read_json(path)
        try:
            if value["schema"] != 1:
                raise ValueError(f"schema {value['schema']}, expected 1")
            thresholds = Thresholds.from_dict(value)
            for method in value["models"]:
                thresholds.group(method).density(0.0)
            return cls(thresholds, dict(value["models"]), int(value["patients"]), [str(d) for d in value["seen"]])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} holds no thresholds ({error!r}); expected thresholds.json of `normscan diagnose`"
            ) from error

    def group(self, path: Path, identity: str) -> Group:
        """The rule for one model alone; an InputError (naming the file) where the thresholds are another's."""
        if len(self.models) != 1:
            raise InputError(
                f"{path}: the thresholds are of {' and '.join(self.models)} together; a bundle holds one model, choose "
                "thresholds for it alone"
            )
        ((method, known),) = self.models.items()
        if known != identity:
            raise InputError(f"{path}: the thresholds are of another model ({method}); choose them anew for this one")
        return self.thresholds.group(method)


def pooled(rule: Pool, patch: Threshold | None) -> Pool:
    """The pool of a `Group`: a fraction is of patches above the threshold."""
    return {"fraction": patch.median} if rule == "fraction" and patch is not None else rule


def nearest_point(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The threshold whose point of the ROC curve lies nearest to (0, 1), positive iff score > threshold.

    It lies halfway between the two scores that it separates; of points equally near, the one with fewer false alarms.
    Raises ArgumentError where a class is missing.
    """
    false, true, at = metrics.roc_curve(labels, scores)
    best = int(np.argmin(np.hypot(false, 1 - true)))
    if best == 0:  # nothing is positive
        return float(at[0])
    above, below = at[best - 1], at[best]
    if not np.isfinite(below):  # everything is
        return float(np.nextafter(above, -np.inf))
    middle = (above + below) / 2
    return float(middle if middle < above else below)


def folds_of(strata: Mapping[str, str], count: int, *, seed: int = 0) -> list[list[str]]:
    """Patients in `count` folds (fewer where there are fewer), each stratum spread evenly; by name and seed alone."""
    count = min(count, len(strata))
    if count < 2:
        raise InputError(f"found {len(strata)} patients; expected at least 2 to choose thresholds on")
    folds: list[list[str]] = [[] for _ in range(count)]
    place = 0
    for stratum in sorted(set(strata.values())):
        members = [name for name, its in strata.items() if its == stratum]
        for name in sorted(members, key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode()).digest()):
            folds[place % count].append(name)
            place += 1
    return [sorted(fold) for fold in folds]


def choose_threshold(
    labels: Sequence[int], scores: Array, patients: Sequence[str], folds: Sequence[Collection[str]], what: str
) -> Threshold:
    """`nearest_point` without each fold's patients in turn, and the median. Folds that leave one class are skipped."""
    marks, found = np.asarray(labels), []
    for fold in folds:
        left = np.array([name not in fold for name in patients], bool)
        if len(np.unique(marks[left])) == 2:
            found.append(nearest_point(marks[left], scores[left]))
    if not found:
        kinds = {kind: len({p for p, label in zip(patients, labels, strict=True) if label == kind}) for kind in (0, 1)}
        raise InputError(
            f"no {what} can be chosen: {kinds[0]} patients below it and {kinds[1]} above; expected at least 2 of each"
        )
    return Threshold(float(np.median(found)), tuple(found))
