"""Pseudo-anomalies: every maker changes what it says and nothing else, and each draws as its source does."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrays import PICTURES, UNIT, picture
from normscan.data import pseudo
from normscan.data.augment import sample_rng
from normscan.data.pseudo import MAKERS, cutpaste, fpi, gradient_noise, perlin, plant_anomaly, poisson
from normscan.errors import ArgumentError

# All makers


@given(
    name=st.sampled_from(sorted(MAKERS)),
    sides=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    other=st.none() | st.tuples(st.integers(8, 70), st.integers(8, 70)),
    channels=st.sampled_from([(), (1,), (3,)]),
    dtype=st.sampled_from(sorted(UNIT, key=str)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150)
def test_nothing_changes_but_where_the_mask_is(name, sides, other, channels, dtype, seed):
    pixels, donor = picture((*sides, *channels), dtype, 1), picture((*(other or sides), *channels), dtype, 2)
    before = pixels.copy(), donor.copy()
    planted, mask = MAKERS[name](pixels, donor, sample_rng(seed, 0, 0))
    assert (planted.shape, planted.dtype) == (pixels.shape, pixels.dtype)
    assert (mask.shape, mask.dtype) == (sides, np.bool_)
    changed = (planted != pixels).reshape(*sides, -1).any(axis=2)
    assert changed.any()
    assert not mask.all()
    np.testing.assert_array_equal(mask if name != "mixed" else changed & mask, changed)
    assert planted.min() >= 0
    assert planted.max() <= UNIT[dtype]
    again = MAKERS[name](pixels, donor, sample_rng(seed, 0, 0))
    np.testing.assert_array_equal(again[0], planted)
    np.testing.assert_array_equal(again[1], mask)
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(donor, before[1])


@pytest.mark.parametrize("name", MAKERS)
def test_draws_differ(name):
    pixels, donor = picture((64, 64, 3), np.uint8, 1), picture((64, 64, 3), np.uint8, 2)
    assert len({MAKERS[name](pixels, donor, sample_rng(0, -1, index))[0].tobytes() for index in range(30)}) == 30


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"mixed"}))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("value", [0, 0.4, 1])
@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8), (8, 300)])
def test_flat_pictures_get_visible_anomalies_too(name, dtype, value, shape):
    flat = np.full(shape, value * UNIT[dtype], dtype)
    for index in range(20):
        planted, mask = MAKERS[name](flat, flat, sample_rng(0, -1, index))
        difference = np.abs(planted.astype(np.float64) - flat) / UNIT[dtype]
        assert difference[mask].max() > 0.001
        np.testing.assert_array_equal(planted[~mask], flat[~mask])


@pytest.mark.parametrize("name", MAKERS)
def test_the_picture_may_be_its_own_donor(name):
    pixels = picture((40, 40, 3), np.uint8)
    for index in range(20):
        planted, mask = MAKERS[name](pixels, pixels, sample_rng(0, -1, index))
        assert np.abs(planted.astype(float) - pixels)[mask].max() >= 1


@pytest.mark.parametrize(
    ("pixels", "donor", "match"),
    [
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint8), "expected one dtype and number of channels"),
        (np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint16), "expected one dtype"),
        (np.zeros((7, 90), np.uint8), np.zeros((7, 90), np.uint8), "found 90 x 7 pixels; expected at least 8 a side"),
        (np.zeros((9, 9), np.float64), np.zeros((9, 9), np.float64), "found float64 pixels of shape"),
        (np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 4), np.uint8), "found 4 channels; expected 1 or 3"),
        (np.zeros((0, 9), np.uint8), np.zeros((9, 9), np.uint8), "of shape"),
    ],
)
@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_planted_is_refused(name, pixels, donor, match):
    who = "plant_anomaly" if name == "mixed" else name
    with pytest.raises(ArgumentError, match=f"^{who}: .*{match}"):
        MAKERS[name](pixels, donor, sample_rng(0, 0, 0))


# fpi


def test_the_square_and_its_opacity_are_drawn_as_by_the_source():
    """White blended into black shows the opacity; the square lies within the picture, whatever its shape."""
    height, width, count = 200, 300, 600
    black, white = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    alphas, halves, centres = [], [], []
    for index in range(count):
        planted, mask = fpi(black, white, sample_rng(3, 0, index))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert len(rows) == len(columns)
        assert mask.sum() == len(rows) ** 2 == (rows[-1] - rows[0] + 1) ** 2
        values = np.unique(planted[mask])
        assert len(values) == 1
        alphas.append(values[0])
        halves.append(len(rows) / 2 / height)
        centres.append(((rows[0] + len(rows) / 2) / height, (columns[0] + len(columns) / 2) / width))
    for drawn, low, high in ((alphas, 0, 1), (halves, 0.05, 0.2), *((c, 0.2, 0.8) for c in np.transpose(centres))):
        share = (np.sort(drawn) - low) / (high - low)
        assert -0.02 < share[0] <= share[-1] < 1.02  # 0.02: whole pixels
        # Kolmogorov and Smirnov: a uniform number is this far off once in a thousand times, and whole pixels add to it.
        assert np.abs(share - (np.arange(count) + 0.5) / count).max() < 1.95 / np.sqrt(count) + 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_square_shows_the_same_place_of_the_donor(dtype):
    pixels, donor = picture((60, 50, 3), dtype, 1), picture((60, 50, 3), dtype, 2)
    for index in range(20):
        planted, mask = fpi(pixels, donor, sample_rng(0, 0, index))
        change, gap = (x[mask].astype(np.float64) - pixels[mask] for x in (planted, donor))
        alpha = (change * gap).sum() / (gap * gap).sum()
        assert 0 < alpha < 1
        assert np.abs(change - alpha * gap).max() <= (1.1 if dtype != np.float32 else 1e-5)


# cutpaste


def rectangle(mask):
    """Where the mask is, as slices."""
    return tuple(slice(at[0], at[-1] + 1) for at in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)))


@pytest.mark.parametrize(("shape", "count"), [((40, 50), 50), ((8, 8), 500)])
def test_the_rectangle_comes_from_elsewhere_in_the_picture(monkeypatch, shape, count):
    monkeypatch.setattr(pseudo, "_jittered", lambda patch, rng: 1 - patch)
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    for index in range(count):
        planted, mask = cutpaste(pixels, pixels, sample_rng(0, 0, index))
        place = rectangle(mask)
        assert mask[place].all()
        patch = 1 - planted[place]
        top, left = np.unravel_index(np.abs(pixels - patch[0, 0]).argmin(), pixels.shape)
        assert (top, left) != (place[0].start, place[1].start)
        high, wide = patch.shape
        np.testing.assert_allclose(patch, pixels[top : top + high, left : left + wide], atol=1e-6)


@pytest.mark.parametrize("shape", [(100, 100), (60, 240)])
def test_the_rectangle_is_of_the_sources_sizes(shape):
    pixels = np.random.default_rng(0).random(shape).astype(np.float32)
    masks = [cutpaste(pixels, pixels, sample_rng(0, 0, index))[1] for index in range(300)]
    areas = np.array([mask.mean() for mask in masks])
    sides = np.array([(mask.any(axis=1).sum(), mask.any(axis=0).sum()) for mask in masks])
    assert 0.018 < areas.min() < 0.03
    assert 0.14 < areas.max() < 0.155
    aspects = sides[:, 1] / sides[:, 0]
    assert 0.28 < aspects.min() < 0.36
    assert 2.8 < aspects.max() < 3.5
    assert 0.4 < np.mean(aspects > 1) < 0.6


def test_colours_are_jittered_by_a_tenth():
    """Of a flat picture: brightness, saturation within a tenth each, the hue turned by up to 36 degrees."""
    flat = np.broadcast_to(np.float32([0.6, 0.4, 0.35]), (40, 40, 3)).copy()
    grey = flat[0, 0].mean()
    axes = np.array([[2, -1, -1], [0, np.sqrt(3), -np.sqrt(3)]]) / np.sqrt(6)
    bright, chroma = [], []
    for index in range(200):
        planted, mask = cutpaste(flat, flat, sample_rng(0, 0, index))
        colour = planted[mask][0].astype(np.float64)
        bright.append(colour.mean() / grey)
        chroma.append(complex(*(axes @ colour)) / complex(*(axes @ flat[0, 0])) / bright[-1])
    assert 0.9 <= min(bright) < 0.92
    assert 1.08 < max(bright) <= 1.1
    assert 0.81 < np.abs(chroma).min() < 0.95  # contrast and saturation
    assert 1.05 < np.abs(chroma).max() < 1.21
    angles = np.rad2deg(np.angle(chroma))
    assert -36.1 < angles.min() < -30
    assert 30 < angles.max() < 36.1


def test_the_donor_is_not_used():
    pixels = picture((40, 50, 3), np.uint8)
    first, second = (cutpaste(pixels, picture((40, 50, 3), np.uint8, seed), sample_rng(0, 0, 1))[0] for seed in (4, 5))
    np.testing.assert_array_equal(first, second)


# poisson


def laplacian(values):
    """Of the inner pixels."""
    return values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * values[1:-1, 1:-1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gradients_are_the_donors_and_its_brightness_is_not(monkeypatch, dtype):
    """Within the rectangle the picture has the donor's Laplacian, of one place and no other; at its edge, no step.

    OpenCV takes the picture's own gradients in the outermost pixels, and its solution is near the equation's, not it.
    """
    for name, only in {"_RESIZED": 1.0, "_RECTANGLE": 0.1, "_ASPECT": 1.0}.items():
        monkeypatch.setattr(pseudo, name, (only, only))
    flat = np.full((40, 44), 0.3 * UNIT[dtype], dtype)  # so that mixed gradients are the donor's too
    texture = cv2.GaussianBlur(np.random.default_rng(1).uniform(0, 1, (40, 44)), (0, 0), 0.8)
    donor = (texture * UNIT[dtype]).astype(dtype)  # brighter by 0.2
    wanted = laplacian(donor.astype(np.float64))
    for index in range(10):
        planted, mask = poisson(flat, donor, sample_rng(0, 0, index))
        assert [part.stop - part.start for part in rectangle(mask)] == [13, 13]  # 169 of 1760 pixels
        inside = tuple(slice(part.start + 2, part.stop - 2) for part in rectangle(mask))
        assert np.abs(planted[mask].mean() / UNIT[dtype] - 0.3) < 0.06
        found = laplacian(planted[inside].astype(np.float64))
        places = np.lib.stride_tricks.sliding_window_view(wanted, found.shape).reshape(-1, found.size)
        alike = np.sort([np.corrcoef(found.ravel(), place)[0, 1] for place in places])
        assert alike[-1] > 0.9
        assert alike[-2] < 0.8


def test_half_of_the_draws_keep_the_pictures_own_grain(monkeypatch):
    """Mixed gradients are the stronger ones: grain stays; the smooth donor's alone wipe it out."""
    monkeypatch.setattr(pseudo, "_VISIBLE_SEAMLESS", 0.0)
    monkeypatch.setattr(pseudo, "_RECTANGLE", (0.1, 0.1))
    monkeypatch.setattr(pseudo, "_ASPECT", (1.0, 1.0))
    grain, smooth = np.random.default_rng(0).integers(80, 176, (64, 64)).astype(np.uint8), picture((64, 64), np.uint8)
    kept = []
    for index in range(100):
        planted, mask = poisson(grain, smooth, sample_rng(0, 0, index))
        inside = tuple(slice(part.start + 3, part.stop - 3) for part in rectangle(mask))
        found, before = (np.std(laplacian(x[inside].astype(np.float64))) for x in (planted, grain))
        kept.append(found / before)
    assert 30 < np.sum(np.array(kept) > 0.7) < 70
    assert 30 < np.sum(np.array(kept) < 0.3) < 70


def test_a_narrow_range_of_16_bits_is_not_lost():
    """As of a scanner of 12 bits: steps of the pictures' own range, not of all 65536 values."""
    pixels, donor = (20000 + picture((64, 64), np.uint8, seed).astype(np.uint16) * 16 for seed in (1, 2))
    changes = set()
    for index in range(10):
        planted, mask = poisson(pixels, donor, sample_rng(0, 0, index))
        changes |= set((planted[mask].astype(int) - pixels[mask]).tolist())
        assert planted.max() < 20000 + 4096 * 1.5
    assert len(changes) > 50


# perlin


def test_gradient_noise_is_perlins():
    """Against its definition, pixel by pixel."""
    rows, columns, shape = 3, 2, (24, 20)
    found = gradient_noise(sample_rng(1, 2, 3), shape, rows, columns)
    angle = sample_rng(1, 2, 3).uniform(0, 2 * np.pi, (rows + 1, columns + 1))

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    for i in range(shape[0]):
        for j in range(shape[1]):
            y, x = i * rows / shape[0], j * columns / shape[1]
            row, column = int(y), int(x)
            v, u = y - row, x - column
            value = sum(
                (fade(v) if down else 1 - fade(v))
                * (fade(u) if right else 1 - fade(u))
                * (np.cos(at) * (v - down) + np.sin(at) * (u - right))
                for down in (0, 1)
                for right in (0, 1)
                for at in [angle[row + down, column + right]]
            )
            assert found[i, j] == pytest.approx(np.sqrt(2) * value, abs=1e-5)
    assert np.abs(gradient_noise(sample_rng(0, 0, 0), (200, 200), 9, 9)).max() <= 1


def test_noise_has_the_opacity_and_the_area_that_it_says(monkeypatch):
    monkeypatch.setattr(pseudo, "_strange", lambda other, spread, rng: np.ones_like(other))
    black = np.zeros((96, 96), np.float32)
    drawn = [perlin(black, black, sample_rng(0, 0, index)) for index in range(300)]
    alphas = np.array([np.unique(planted[mask]) for planted, mask in drawn]).ravel()
    assert len(alphas) == 300
    assert 0.2 <= alphas.min() < 0.22
    assert 0.88 < alphas.max() <= 0.9
    areas = np.array([mask.mean() for _, mask in drawn])
    assert areas.min() > 0.019
    assert 0.15 < areas.max() < 0.4
    assert len({mask.tobytes() for _, mask in drawn}) == 300


# mixed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", PICTURES)
def test_anomalies_are_local_and_of_the_size_they_say(dtype, shape):
    pixels, donor = picture(shape, dtype, 1), picture(shape, dtype, 2)
    before = pixels.copy(), donor.copy()
    changed = []
    for index in range(40):
        planted, mask = plant_anomaly(pixels, donor, sample_rng(0, -1, index))
        assert (planted.shape, planted.dtype) == (pixels.shape, pixels.dtype)
        assert (mask.shape, mask.dtype) == (pixels.shape[:2], np.bool_)
        np.testing.assert_array_equal(planted[~mask], pixels[~mask])
        assert planted.min() >= 0
        assert planted.max() <= UNIT[dtype]
        assert 0.03 - 1 / mask.size <= mask.mean() <= 0.15 + 2 / mask.size
        difference = np.abs(planted[mask].astype(np.float64) - pixels[mask]) / UNIT[dtype]
        assert difference.mean() > 0.01
        changed.append((difference > 0).mean())
    assert np.mean(changed) > 0.9
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(donor, before[1])


def test_anomalies_lie_about_the_middle_and_differ():
    pixels, donor = picture((64, 64, 3), np.uint8, 1), picture((64, 64, 3), np.uint8, 2)
    masks = [plant_anomaly(pixels, donor, sample_rng(0, -1, index))[1] for index in range(60)]
    centres = np.array([np.argwhere(mask).mean(axis=0) / 64 for mask in masks])
    assert centres.min() > 0.1
    assert centres.max() < 0.9
    assert np.mean((centres > 0.2) & (centres < 0.8)) > 0.8
    assert len({mask.tobytes() for mask in masks}) == 60
    assert centres.std(axis=0).min() > 0.1


def test_anomalies_are_repeatable():
    pixels, donor = picture((40, 50), np.uint8, 1), picture((40, 50), np.uint8, 2)
    first, second = (plant_anomaly(pixels, donor, sample_rng(5, -1, 3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_donor_may_have_another_size():
    planted, mask = plant_anomaly(
        picture((40, 40, 3), np.uint8), picture((90, 33, 3), np.uint8, 4), sample_rng(0, -1, 0)
    )
    assert planted.shape == (40, 40, 3)
    assert mask.any()


@pytest.mark.parametrize("value", [0, 100, 255])
def test_flat_pictures_get_anomalies_of_any_kind(value):
    flat = np.full((32, 32, 3), value, np.uint8)
    for index in range(20):
        planted, mask = plant_anomaly(flat, flat, sample_rng(0, -1, index))
        assert np.abs(planted[mask].astype(int) - value).max() >= 1
        np.testing.assert_array_equal(planted[~mask], flat[~mask])
