"""A made-up cohort of stained gastric biopsies in the layout of `normscan.data.histology`, for the demo and for tests.

Nothing here is clinical data. Half of the patients are negative, a quarter have few rods (*Helicobacter pylori*) and a
quarter many. Staining, sharpness and harmless red and brown things (see `normscan.data.synthetic_tissue`) vary from
patient to patient far more than rods add, so that a threshold on redness does not tell patches with rods, nor patients
who have them: a test holds it below an AUC of 0.9 on `EVALUATION_SEED`. Figures reported for a method come from that
seed; methods are tuned on others. Altering a picture alters every figure, so neither generator nor seed is touched.

Patches are 128 pixels a side unless told otherwise: 64 um, a gland and its surroundings, with rods still 4 to 8 pixels
long. 256, as in the source, show four times as much tissue and take three times as long.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normscan.data.augment import sample_rng
from normscan.data.histology import Density, HistologyLayout
from normscan.data.read import write_image
from normscan.data.synthetic_tissue import Staining, tissue
from normscan.errors import ArgumentError, UsageError
from normscan.files import write_bytes

EVALUATION_SEED = 90210
"""The cohort of the reported figures, chosen before any method was tried on it."""

FIRST_ANNOTATED = 10_000
"""Annotated patches are numbered from here, so that a patient's pictures all have names of their own."""

# What a generator is for, where it is not for a patch of the patient by that number.
_DENSITY, _STAINING, _INFECTION, _SECTIONS, _DOUBT = -1, -2, -3, -4, -5
# Optical densities of haematoxylin, DAB and fast red in R, G, B: Ruifrok and Johnston 2001; of haemoglobin: by eye.
_HAEMATOXYLIN, _DAB = np.array((0.65, 0.70, 0.29)), np.array((0.27, 0.57, 0.78))
_FAST_RED, _HAEMOGLOBIN = np.array((0.21, 0.85, 0.48)), np.array((0.10, 0.66, 0.62))
# Another laboratory: haematoxylin more purple, chromogen redder and weaker, yellower light, a softer picture.
_SHIFTED_DYES = np.array([(-0.07, 0.10, 0.12), (-0.04, 0.14, -0.22), (0.0, 0.0, 0.0)])
_SHIFTED_STRENGTHS, _SHIFTED_GLASS, _SHIFTED_BLUR = np.array((1.35, 0.75, 1.0)), np.array((1.0, 0.98, 0.93)), 0.3


def density_of(seed: int, patient: int) -> Density:
    """Of every four patients in a row two are negative, one low, one high."""
    order = sample_rng(seed, _DENSITY, patient // 4).permutation(4)
    return ("negative", "negative", "low", "high")[order[patient % 4]]


def staining_of(seed: int, patient: int, *, stain_shift: float = 0.0) -> Staining:
    """How a patient's slides look; it does not depend on the density.

    `stain_shift` 0 is the laboratory that training sees, 1 another one, values between lie between. What is drawn does
    not depend on it: the same tissue comes out in other colours.
    """
    rng = sample_rng(seed, _STAINING, patient)
    chromogen = _DAB + rng.uniform(0.05, 0.55) * (_FAST_RED - _DAB)
    dyes = np.stack([_HAEMATOXYLIN, chromogen, _HAEMOGLOBIN]) + rng.normal(0, 0.025, (3, 3))
    dyes = np.maximum(dyes + stain_shift * _SHIFTED_DYES, 0.02)
    strengths = np.exp(rng.normal(0, (0.20, 0.18, 0.15))) * _SHIFTED_STRENGTHS**stain_shift
    glass = rng.uniform(0.93, 0.97) * (1 + rng.normal(0, 0.012, 3)) * _SHIFTED_GLASS**stain_shift
    return Staining(
        dyes=dyes / np.linalg.norm(dyes, axis=1, keepdims=True),
        strengths=strengths,
        glass=np.minimum(glass, 1.0),
        blush=float(rng.uniform(0.01, 0.10)),
        blur=float(rng.uniform(0.45, 0.85) + _SHIFTED_BLUR * stain_shift),
        grain=float(rng.uniform(0.006, 0.016)),
        blood=float(np.exp(rng.normal(-0.1, 0.5))),
        pigment=float(np.exp(rng.normal(-0.2, 0.5))),
        plasma=float(rng.beta(1.2, 3.0)),
        mucus=float(np.exp(rng.normal(-0.25, 0.5))),
        biotin=float(rng.beta(0.8, 2.2)),
    )


def patch(
    seed: int, patient: int, number: int, *, size: int = 128, stain_shift: float = 0.0
) -> tuple[NDArray[np.uint8], int]:
    """One patch of a patient -> (pixels uint8 [size,size,3] RGB, the number of rods in it).

    Numbers from `FIRST_ANNOTATED` are the annotated ones, chosen by an imaginary pathologist: about half of an infected
    patient's show rods. Of the others a fifth to a third do where the density is low, more than half where it is high.
    """
    density = density_of(seed, patient)
    extent = sample_rng(seed, _INFECTION, patient).random()
    share, least, most = {
        "negative": (0.0, 0, 0),
        "low": (0.18 + 0.18 * extent, 3, 12),
        "high": (0.55 + 0.35 * extent, 6, 36),
    }[density]
    if density != "negative" and number >= FIRST_ANNOTATED:
        share = 0.55
    rng = sample_rng(seed, patient, number)
    rods = int(rng.integers(least, most + 1))
    infected = rng.random() < share
    staining = staining_of(seed, patient, stain_shift=stain_shift)
    return tissue(rng, staining, size=size, rods=rods if infected else 0)


def write_cohort(
    folder: Path,
    *,
    seed: int,
    patients: int = 60,
    patches: int = 50,
    annotated: int = 20,
    size: int = 128,
    stain_shift: float = 0.0,
) -> None:
    """Write a cohort into a new or empty folder: both folders of PNG, both tables, and `truth.csv`.

    Each patient has `patches` cropped and `annotated` annotated pictures, in one section or two. One annotated patch in
    twenty is called uncertain. `truth.csv` (columns file, rods) knows every picture, cropped ones included; no reader
    looks at it. Each picture depends on the seed, its patient and its number alone, not on how many there are.

    Raises UsageError for a folder that holds something, ArgumentError for numbers out of range.
    """
    _check(folder, patients, patches, annotated)
    layout = HistologyLayout()
    words = {"negative": layout.negative, "low": layout.low, "high": layout.high}
    names = [f"P{patient:03d}" for patient in range(patients)]
    presences, truth = [], []
    for patient, name in enumerate(names):
        sections = 1 + int(sample_rng(seed, _SECTIONS, patient).integers(2))
        for number in [*range(patches), *range(FIRST_ANNOTATED, FIRST_ANNOTATED + annotated)]:
            chosen, section = number >= FIRST_ANNOTATED, number % sections
            place = f"{layout.annotated if chosen else layout.cropped}/{name}_{section}/{number:05d}.png"
            pixels, rods = patch(seed, patient, number, size=size, stain_shift=stain_shift)
            write_image(folder / place, pixels)
            truth.append((place, rods))
            if chosen:
                presences.append((name, section, number, _presence(seed, patient, number, rods)))
    diagnoses = [(name, words[density_of(seed, patient)]) for patient, name in enumerate(names)]
    _write_table(folder / layout.diagnoses, (layout.patient, layout.density), diagnoses)
    if annotated:
        columns = (layout.patch_patient, layout.section, layout.patch, layout.presence)
        _write_table(folder / layout.patches, columns, presences)
    _write_table(folder / "truth.csv", ("file", "rods"), truth)


def _presence(seed: int, patient: int, number: int, rods: int) -> str:
    """What the imaginary pathologist writes down; one patch in twenty is uncertain to them."""
    layout = HistologyLayout()
    if sample_rng(seed, _DOUBT - patient, number).random() < 0.05:
        return layout.uncertain
    return layout.present if rods else layout.absent


def _write_table(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _check(folder: Path, patients: int, patches: int, annotated: int) -> None:
    if not (patients > 0 and 0 < patches <= FIRST_ANNOTATED and annotated >= 0):
        raise ArgumentError(
            f"write_cohort: found {patients} patients with {patches} and {annotated} annotated patches; expected at "
            f"least 1 patient, 1 to {FIRST_ANNOTATED} patches and 0 annotated ones or more"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder; name another, or empty it first")
