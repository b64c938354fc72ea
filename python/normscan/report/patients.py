"""Patients as their pages show them: what is known of each, what became of it, and sentences. Nothing here is HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.data.histology import Density
from normscan.report.strips import Level
from normscan.report.words import Metrics, percent, score

SHOWN = 12  # patches on a patient's page
SHARE = "share of positive patches"
OTHER_DENSITY = "other density"
WRONG = ("missed", "false alarm")


@dataclass(frozen=True, slots=True)
class Patch:
    """One of a patient's most suspicious patches."""

    name: str  # shown
    score: float  # of the first method, or the mean of standardised ones: shown as it is
    positive: bool | None  # above the patch threshold; None: there is none
    image: npt.NDArray[np.uint8]  # [H,W,3] RGB
    map: npt.NDArray[np.floating[Any]] | None  # [H,W]; a patch classifier has none


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient of the report. A score that could not be computed is NaN."""

    name: str  # the cohort's own code for the patient, as in its tables
    truth: Density | None  # where the cohort has a diagnosis
    diagnosis: Density | None  # None: no thresholds; "low" for every infected one where none is set for high density
    score: float  # e.g. the share of positive patches
    shares: Mapping[str, float]  # score by method, where several were combined (one entry otherwise)
    patches: int  # how many were scored
    fold: int | None  # the outer fold that it was diagnosed in, from 0; None: thresholds came from elsewhere
    most_suspicious: Callable[[], Sequence[Patch]]  # most suspicious first, read when their page is made; `SHOWN` count


def outcome(patient: Patient, graded: bool) -> str:
    """found, passed, missed, false alarm or other density; empty where truth or diagnosis is unknown.

    graded: whether the diagnosis tells low from high density.
    """
    if patient.truth is None or patient.diagnosis is None:
        return ""
    if patient.truth == "negative":
        return "passed" if patient.diagnosis == "negative" else "false alarm"
    if patient.diagnosis == "negative":
        return "missed"
    return OTHER_DENSITY if graded and patient.diagnosis != patient.truth else "found"


def called(density: Density | None, graded: bool = True) -> str:
    """A density in words; empty where it is unknown."""
    if density is None or density == "negative":
        return density or ""
    return f"{density} density" if graded else "infected"


def listed(patients: Sequence[Patient], graded: bool) -> list[Patient]:
    """In the order of the index: missed and false alarms, then other densities, then the rest; each by score."""

    def place(patient: Patient) -> tuple[int, float]:
        became = outcome(patient, graded)
        rank = 0 if became in WRONG else 1 if became == OTHER_DENSITY else 2
        return rank, -patient.score if math.isfinite(patient.score) else math.inf

    return sorted(patients, key=place)


def levels(thresholds: Mapping[str, Any], fold: int | None = None) -> list[Level]:
    """The thresholds of patients: a fold's own where that is given and known, else medians and the range of folds."""
    found = []
    for key, name in (("positive", "infected"), ("high", "high density")):
        folds, median = folds_of(thresholds.get(key)), (thresholds.get(key) or {}).get("median")
        own = folds[fold] if fold is not None and 0 <= fold < len(folds) else None
        if own is not None:
            found.append(Level(name, own))
        elif median is not None:
            known = [value for value in folds if value is not None]
            found.append(Level(name, median, (min(known), max(known)) if known else None))
    return found


def folds_of(threshold: Mapping[str, Any] | None) -> list[float | None]:
    """A threshold's value in each fold."""
    return list((threshold or {}).get("folds") or [])


Told = Callable[[float], str]


def telling(metrics: Metrics, patients: Sequence[Patient]) -> tuple[str, Told, Told]:
    """What a patient's score is, how it is written, and how an axis of it is: `SHARE`, in percent, unless it is not."""
    name = metrics.get("score") or SHARE
    scores = [p.score for p in patients if math.isfinite(p.score)]
    if name == SHARE and all(0 <= value <= 1 for value in scores):
        return name, percent, lambda value: f"{100 * value:.4g}\N{NO-BREAK SPACE}%"
    return ("score" if name == SHARE else name), score, score


def sentences(metrics: Metrics, patients: Sequence[Patient], decided: bool) -> Iterator[str]:
    """What the numbers say. decided: whether there are thresholds or diagnoses."""
    get = metrics.get
    everyone, negative = _patients(len(patients)), sum(patient.truth == "negative" for patient in patients)
    unknown = sum(patient.truth is None for patient in patients)
    if unknown == len(patients):
        yield f"{everyone}. What they have is not known here, so no figure says how often this is right."
    else:
        yield f"{everyone}: {len(patients) - negative - unknown} infected, {negative} negative."
        if unknown:
            yield f"{unknown} of them {_are(unknown)} without a diagnosis in the table and in no figure."
    found, infected = get("true_positive"), get("infected")
    if found is not None and infected:
        yield _of(found, infected, "infected", ("found", "missed", "missed"))
    passed, well = get("true_negative"), get("negative")
    if passed is not None and well:
        yield _of(passed, well, "negative", ("called negative", "a false alarm", "false alarms"))
    if not decided:
        yield "There are no thresholds, so no patient is called negative or infected: they can only be ranked."
    area = get("auroc")
    if area is not None:
        yield from _ranking(area, get("auroc_ci"))
    unscored = sum(not math.isfinite(patient.score) for patient in patients)
    if unscored:
        yield f"{unscored} of {everyone} could not be scored."
    if get("how"):
        yield str(get("how"))


def story(patient: Patient, graded: bool, decided: bool) -> Iterator[str]:
    """What a patient's page says first."""
    if patient.diagnosis is not None:
        yield f"Diagnosed: {called(patient.diagnosis, graded)}."
    elif not decided:
        yield "Not diagnosed, since there are no thresholds."
    if patient.truth is not None:
        yield f"The table says: {called(patient.truth)}."
    else:
        yield "The table says nothing of this patient."
    end = {
        "missed": "An infected patient is missed.",
        "false alarm": "This is a false alarm.",
        OTHER_DENSITY: "The infection is found, its density is another.",
    }.get(outcome(patient, graded))
    if end:
        yield end


def _ranking(area: float, bounds: Sequence[float] | None) -> Iterator[str]:
    yield (
        f"Of one infected and one negative patient, the infected one scores higher {percent(area)} of the time; "
        "guessing would give 50 %."
    )
    if bounds is not None and bounds[0] == bounds[1]:
        yield "The two do not overlap at all here, so these patients cannot say how certain that is."
    elif bounds is not None and bounds[0] <= 0.5 <= bounds[1]:
        yield "The interval contains 0.5: these patients do not show that it is better than guessing."
    elif bounds is not None and bounds[1] < 0.5:
        yield "That is worse than guessing."


def _of(part: int, whole: int, kind: str, words: tuple[str, str, str]) -> str:
    """Counts as a sentence; words: what became of `part`, of one of the others, and of several."""
    done, one, several = words
    if whole == 1:
        return f"The one {kind} patient is {done if part else one}."
    if part == whole:
        return f"All {whole} {kind} patients are {done}."
    rest = whole - part
    others = f"{rest} {_are(rest)} {one if rest == 1 else several}"
    return f"{part} of {whole} {kind} patients {_are(part)} {done}, {others}."


def _patients(n: int) -> str:
    return "1 patient" if n == 1 else f"{n} patients"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
