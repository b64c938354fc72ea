"""The demo's pictures: local lesions that the picture's brightness does not give away."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from normscan.data.augment import sample_rng
from normscan.data.layouts import read_layout
from normscan.data.read import read
from normscan.data.splits import check_disjoint
from normscan.data.synthetic import dermoscopy, write_demo
from normscan.errors import ArgumentError, UsageError

COUNT = 200
LABELS = [0] * COUNT + [1] * COUNT


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """200 normal and then 200 abnormal: pixels [400,96,96,3] uint8, masks [400,96,96] bool."""
    made = [dermoscopy(sample_rng(1, part, index), abnormal=bool(part)) for part in (0, 1) for index in range(COUNT)]
    return np.stack([pixels for pixels, _ in made]), np.stack([mask for _, mask in made])


def test_masks_are_empty_on_healthy_skin_and_small_on_lesions(pictures):
    pixels, masks = pictures
    assert (pixels.shape, pixels.dtype) == ((2 * COUNT, 96, 96, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((2 * COUNT, 96, 96), np.bool_)
    assert not masks[:COUNT].any()
    areas = masks[COUNT:].mean(axis=(1, 2))
    assert areas.min() >= 0.02
    assert areas.max() <= 0.15 + 2 / 96**2
    assert np.mean(areas < 0.06) > 0.5


def test_brightness_gives_little_away(pictures):
    brightness = pictures[0].mean(axis=(1, 2, 3))
    area = roc_auc_score(LABELS, brightness)
    assert max(area, 1 - area) <= 0.65


def test_global_colour_statistics_do_not_solve_it(pictures):
    pixels = pictures[0].reshape(2 * COUNT, -1, 3).astype(np.float64)
    histograms = np.stack(
        [np.concatenate([np.histogram(one[:, c], 16, (0, 256))[0] for c in range(3)]) for one in pixels]
    )
    moments = np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)
    for features in (histograms.astype(np.float64), moments):
        centre, spread = features[:COUNT].mean(axis=0), np.cov(features[:COUNT].T) + np.eye(features.shape[1])
        offset = features - centre
        distance = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(spread), offset)
        assert roc_auc_score(LABELS, distance) < 0.97


def test_skin_runs_from_light_to_dark(pictures):
    brightness = pictures[0][:COUNT].mean(axis=(1, 2, 3))
    assert np.quantile(brightness, 0.05) < 100
    assert np.quantile(brightness, 0.95) > 170


def test_lesions_stand_out_from_the_skin_around_them(pictures):
    pixels, masks = (array[COUNT:] for array in pictures)
    # Distance of a lesion's pixels from the skin's mean colour, beside that of the skin's own pixels.
    for one, mask in zip(pixels.astype(np.float64), masks, strict=True):
        distance = np.linalg.norm(one - one[~mask].mean(axis=0), axis=2)
        assert distance[mask].mean() > max(20, 1.5 * distance[~mask].mean())  # of 255, in RGB


def test_pictures_are_repeatable_and_quick():
    start = time.perf_counter()
    first = [dermoscopy(sample_rng(2, 0, index), abnormal=index % 2 == 1) for index in range(40)]
    assert (time.perf_counter() - start) / 40 < 0.05
    second = [dermoscopy(sample_rng(2, 0, index), abnormal=index % 2 == 1) for index in range(40)]
    for (pixels, mask), (again, mask_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(mask, mask_again)


@pytest.mark.parametrize("size", [32, 65, 160])
def test_other_sizes(size):
    pixels, mask = dermoscopy(sample_rng(0, 0, 0), size=size, abnormal=True)
    assert (pixels.shape, mask.shape) == ((size, size, 3), (size, size))


def test_pictures_too_small_for_hairs_are_refused():
    with pytest.raises(ArgumentError, match="found size 16; expected at least 32"):
        dermoscopy(sample_rng(0, 0, 0), size=16, abnormal=False)


def test_the_demo_is_a_layout(tmp_path):
    write_demo(tmp_path / "demo", size=48, train=12, test_normal=4, test_abnormal=5)
    records = read_layout(tmp_path / "demo")
    check_disjoint(records)
    assert [(r.split, r.label) for r in records].count(("train", 0)) == 12
    assert [(r.split, r.label) for r in records].count(("test", 0)) == 4
    abnormal = [read(record) for record in records if record.label]
    assert len(abnormal) == 5
    assert all(sample.mask is not None and 0.02 <= sample.mask.mean() <= 0.16 for sample in abnormal)


def test_the_demo_depends_on_its_seed_and_not_on_its_size(tmp_path):
    for name, seed, train in (("a", 0, 3), ("b", 0, 5), ("c", 1, 3)):
        write_demo(tmp_path / name, seed=seed, size=32, train=train, test_normal=1, test_abnormal=1)
    a, b, c = ((tmp_path / name / "train/normal/0002.png").read_bytes() for name in "abc")
    assert a == b != c


def test_the_demo_does_not_mix_with_other_files(tmp_path):
    (tmp_path / "mine.png").touch()
    with pytest.raises(UsageError, match="is not an empty folder; name another"):
        write_demo(tmp_path, train=1)
    with pytest.raises(UsageError, match="is not an empty folder"):
        write_demo(tmp_path / "mine.png", train=1)
