"""The made-up cohort: a layout that reads back, repeatable, and not to be solved by its redness."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from normscan.data.augment import sample_rng
from normscan.data.histology import DENSITIES, read_histology
from normscan.data.read import read_image
from normscan.data.splits import check_disjoint
from normscan.data.synthetic_histology import (
    EVALUATION_SEED,
    FIRST_ANNOTATED,
    density_of,
    patch,
    staining_of,
    write_cohort,
)
from normscan.data.synthetic_tissue import tissue
from normscan.errors import ArgumentError, UsageError

PATIENTS, PATCHES = 60, 8


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the evaluation's cohort: pixels uint8 [60,8,128,128,3], rods [60,8], infected [60]."""
    pairs = [[patch(EVALUATION_SEED, patient, number) for number in range(PATCHES)] for patient in range(PATIENTS)]
    pixels = np.stack([[pixels for pixels, _ in row] for row in pairs])
    rods = np.array([[count for _, count in row] for row in pairs])
    return pixels, rods, np.array([density_of(EVALUATION_SEED, i) != "negative" for i in range(PATIENTS)])


def redness(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of redness by name, [patients,patches]: what one looks at before one looks at shapes."""
    wide = pixels.astype(np.int16)
    residual = wide[..., 0] - (wide[..., 1] + wide[..., 2]) / 2
    hsv = cv2.cvtColor(pixels.reshape(-1, pixels.shape[-2], 3), cv2.COLOR_RGB2HSV).reshape(pixels.shape)
    hue, saturation, value = (hsv[..., channel] for channel in range(3))
    found = {f"hue, saturation {s}": ((hue <= 8) | (hue >= 175)) & (saturation >= s) for s in (0, 50, 100, 150, 180)}
    found |= {
        f"hue, darker than {v}": ((hue <= 12) | (hue >= 175)) & (saturation >= 140) & (value < v)
        for v in (100, 130, 160)
    }
    found |= {f"residual {cut}": residual > cut for cut in (0, 20, 40, 60, 80, 95, 110)}
    return {name: mask.mean(axis=(2, 3)) for name, mask in found.items()} | {
        "mean residual": residual.mean(axis=(2, 3)),
        "highest residual": residual.max(axis=(2, 3)),
        "mean positive residual": np.maximum(residual, 0).mean(axis=(2, 3)),
    }


def area(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUC in the better direction."""
    found = float(roc_auc_score(labels.ravel(), scores.ravel()))
    return max(found, 1 - found)


def test_no_threshold_on_redness_tells_patches_or_patients(made):
    pixels, rods, infected = made
    for name, scores in redness(pixels).items():
        assert area(rods > 0, scores) < 0.9, f"{name}: patches"
        # Any way to a patient's score: mean, maximum, or the share of patches above a threshold, whichever is best.
        cuts = np.unique(np.quantile(scores, np.linspace(0.04, 0.96, 24)))
        patients = [scores.mean(axis=1), scores.max(axis=1), *((scores > cut).mean(axis=1) for cut in cuts)]
        assert max(area(infected, score) for score in patients) < 0.9, f"{name}: patients"


def test_a_rod_is_dark_thin_and_a_few_pixels_long():
    """What a rod adds is seen where it was drawn: the same patch with and without it."""
    staining = staining_of(EVALUATION_SEED, 1)
    seen = 0
    for index in range(30):
        bare, none = tissue(sample_rng(7, 0, index), staining)
        one, count = tissue(sample_rng(7, 0, index), staining, rods=1)
        assert none == 0
        if count == 0:  # no lumen in sight
            np.testing.assert_array_equal(bare, one)
            continue
        darker = cv2.blur(bare.astype(np.float32) - one.astype(np.float32), (2, 2)).mean(axis=2)
        y, x = np.nonzero(darker > 25)
        if len(x) == 0:  # upon something as dark
            continue
        seen += 1
        sides = sorted(cv2.minAreaRect(np.stack([x, y], axis=1).astype(np.int32))[1])
        assert sides[0] < 7
        assert 3 < sides[1] < 13
    assert seen > 20


def test_densities_decide_how_many_patches_show_rods(made):
    _, rods, _ = made
    density = [density_of(EVALUATION_SEED, i) for i in range(PATIENTS)]
    assert [density.count(name) for name in DENSITIES] == [30, 15, 15]
    share = {name: (rods[[d == name for d in density]] > 0).mean() for name in DENSITIES}
    assert share["negative"] == 0
    assert 0.15 < share["low"] < 0.4
    assert 0.5 < share["high"] < 0.9
    assert rods[rods > 0].min() >= 3
    annotated = [
        patch(1, i, FIRST_ANNOTATED + n)[1] for i in range(12) if density_of(1, i) != "negative" for n in range(8)
    ]
    assert 0.3 < np.mean(np.array(annotated) > 0) < 0.7


def test_staining_varies_by_patient_and_moves_with_the_shift():
    here = np.stack([staining_of(1, i).dyes for i in range(40)])
    there = np.stack([staining_of(1, i, stain_shift=1.0).dyes for i in range(40)])
    np.testing.assert_allclose(np.linalg.norm(here, axis=2), 1)
    np.testing.assert_allclose(np.linalg.norm(there, axis=2), 1)
    spread = here.std(axis=0).mean()
    assert spread > 0.01
    assert np.abs(there - here).mean(axis=0)[:2].max() > 3 * spread
    assert staining_of(1, 3).strengths.tolist() == staining_of(1, 3, stain_shift=0.0).strengths.tolist()


def test_the_shift_recolours_the_same_tissue():
    for number in range(6):
        before, rods = patch(1, 1, number)
        after, again = patch(1, 1, number, stain_shift=1.0)
        assert rods == again
        grey = [picture.mean(axis=2).ravel() for picture in (before, after)]
        assert np.corrcoef(grey)[0, 1] > 0.85
        assert np.abs(before.mean(axis=(0, 1)) - after.mean(axis=(0, 1))).max() > 5


@pytest.mark.parametrize("size", [64, 101, 256])
def test_other_sizes(size):
    pixels, rods = patch(2, 1, 0, size=size)
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    assert rods >= 0


def test_wrong_numbers_are_refused(tmp_path):
    staining = staining_of(0, 0)
    with pytest.raises(ArgumentError, match="found size 63; expected at least 64 pixels"):
        tissue(sample_rng(0, 0, 0), staining, size=63)
    with pytest.raises(ArgumentError, match="found -1 rods; expected 0 or more"):
        tissue(sample_rng(0, 0, 0), staining, rods=-1)
    for wrong in ({"patients": 0}, {"patches": 0}, {"patches": FIRST_ANNOTATED + 1}, {"annotated": -1}):
        with pytest.raises(ArgumentError, match=r"write_cohort: found .*; expected at least 1 patient"):
            write_cohort(tmp_path / "new", seed=0, **wrong)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort") / "data"
    write_cohort(root, seed=3, patients=8, patches=4, annotated=8, size=64)
    return root


def test_the_cohort_reads_back(cohort):
    found = read_histology(cohort)
    assert found.unmatched.lines() == []
    assert found.patients == {f"P{i:03d}": density_of(3, i) for i in range(8)}
    assert sum(density == "negative" for density in found.patients.values()) == 4
    check_disjoint(found.records())
    assert (len(found.cropped), len(found.annotated) + len(found.uncertain)) == (32, 64)
    assert 0 < len(found.uncertain) < 10
    assert {r.path.parent.name[-2:] for r in found.records()} == {"_0", "_1"}
    with (cohort / "truth.csv").open(newline="") as file:
        truth = {cohort / row["file"]: int(row["rods"]) for row in csv.DictReader(file)}
    assert truth.keys() == {record.path for record in found.records()}
    assert all(record.label == int(truth[record.path] > 0) for record in found.annotated)
    assert {record.label for record in found.annotated} == {0, 1}
    assert all(record.label == (0 if found.patients[record.group] == "negative" else None) for record in found.cropped)
    assert all(truth[record.path] == 0 for record in found.cropped if record.label == 0)


def test_a_picture_depends_on_seed_patient_and_number_alone(cohort, tmp_path):
    write_cohort(tmp_path / "b", seed=3, patients=2, patches=2, annotated=1, size=64)
    write_cohort(tmp_path / "c", seed=4, patients=1, patches=1, annotated=0, size=64)
    fewer = sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.png"))
    assert len(fewer) == 6
    for path in fewer:
        assert (tmp_path / "b" / path).read_bytes() == (cohort / path).read_bytes()
    (other,) = (tmp_path / "c").rglob("*.png")
    assert not np.array_equal(read_image(other), read_image(cohort / "CroppedPatches/P000_0/00000.png"))
    assert read_histology(tmp_path / "c").annotated == []


def test_the_cohort_does_not_mix_with_other_files(tmp_path):
    (tmp_path / "mine.png").touch()
    for target in (tmp_path, tmp_path / "mine.png"):
        with pytest.raises(UsageError, match="is not an empty folder; name another"):
            write_cohort(target, seed=0, patients=1, patches=1)
