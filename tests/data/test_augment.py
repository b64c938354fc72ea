"""Augmentation: repeatable, in shape, and as far as it says."""

from __future__ import annotations

import numpy as np
import pytest

from arrays import PICTURES, UNIT, picture
from normscan.data.augment import affine, augment, elastic_warp, jitter_stains, sample_rng

# sample_rng


def test_generators_depend_on_seed_epoch_and_index_alone():
    draws = {
        (seed, epoch, index): tuple(sample_rng(seed, epoch, index).integers(0, 2**62, 3))
        for seed in range(4)
        for epoch in (-1, 0, 1)
        for index in range(20)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[2, 1, 7] == tuple(sample_rng(np.int64(2), np.int32(1), np.int64(7)).integers(0, 2**62, 3))


def test_generators_are_the_same_on_every_machine():
    assert sample_rng(0, 0, 0).integers(0, 1000, 4).tolist() == [596, 92, 658, 297]


# affine


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [*PICTURES, (1, 1), (5, 7, 1)])
def test_affine_keeps_shape_dtype_and_range(dtype, shape):
    pixels = picture(shape, dtype)
    before = pixels.copy()
    moved = affine(pixels, sample_rng(0, 0, 1))
    assert (moved.shape, moved.dtype) == (pixels.shape, pixels.dtype)
    assert moved.min() >= pixels.min() - 1e-6
    assert moved.max() <= pixels.max() + 1e-6  # bilinear, reflected: no new extremes, no black corners
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(moved, affine(pixels, sample_rng(0, 0, 1)))


def test_affine_with_nothing_to_do_is_the_identity():
    pixels = picture((31, 47, 3), np.float32)
    still = affine(pixels, sample_rng(0, 0, 0), rotate=0, shift=0, shear=0, zoom=0, flip=False)
    np.testing.assert_array_equal(still, pixels)


def test_affine_flips_about_half():
    pixels = picture((20, 30), np.uint8)
    none = {"rotate": 0.0, "shift": 0.0, "shear": 0.0, "zoom": 0.0}
    flipped = 0
    for index in range(200):
        moved = affine(pixels, sample_rng(0, 0, index), **none)
        mirrored = bool((moved == pixels[:, ::-1]).all())
        assert mirrored or (moved == pixels).all()
        flipped += mirrored
    assert 70 < flipped < 130


def test_affine_moves_as_far_as_it_says():
    pixels = np.zeros((101, 101), np.float32)
    pixels[48:53, 48:53] = 1
    y, x = np.mgrid[:101, :101]
    furthest = 0.0
    for index in range(100):
        moved = affine(pixels, sample_rng(1, 0, index), rotate=0, shear=0, zoom=0)
        centre = np.array([(moved * y).sum(), (moved * x).sum()]) / moved.sum()
        furthest = max(furthest, float(np.abs(centre - 50).max()))
    assert 18 < furthest < 20.5


# elastic_warp


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", PICTURES)
def test_elastic_warp_keeps_shape_dtype_and_range(dtype, shape):
    pixels = picture(shape, dtype)
    warped = elastic_warp(pixels, sample_rng(0, 0, 1), 0.03)
    assert (warped.shape, warped.dtype) == (pixels.shape, pixels.dtype)
    assert warped.min() >= pixels.min()
    assert warped.max() <= pixels.max()
    np.testing.assert_array_equal(warped, elastic_warp(pixels, sample_rng(0, 0, 1), 0.03))
    assert not np.array_equal(warped, elastic_warp(pixels, sample_rng(0, 0, 2), 0.03))


def test_elastic_warp_moves_by_its_reach():
    """A ramp shows how far each pixel was moved: smoothly, and about `reach` of the side."""
    ramp = np.broadcast_to(np.arange(128, dtype=np.float32) / 128, (128, 128)).copy()
    moves = [elastic_warp(ramp, sample_rng(0, 0, i), 0.02)[:, 16:-16] - ramp[:, 16:-16] for i in range(40)]
    assert 0.012 < np.std(moves) < 0.028
    assert np.abs(np.diff(moves, axis=1)).max() < 0.01


# jitter_stains


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_stains_of_another_laboratory_in_the_same_picture(dtype):
    pixels = picture((40, 56, 3), dtype)
    stained = jitter_stains(pixels, sample_rng(0, 0, 1), 0.2)
    assert (stained.shape, stained.dtype) == (pixels.shape, pixels.dtype)
    assert not np.array_equal(stained, pixels)
    np.testing.assert_array_equal(stained, jitter_stains(pixels, sample_rng(0, 0, 1), 0.2))
    barely = jitter_stains(pixels, sample_rng(0, 0, 1), 1e-6).astype(np.float64)
    assert np.abs(barely - np.maximum(pixels, UNIT[dtype] / 255)).max() <= UNIT[dtype] * 1e-4 + (dtype != np.float32)
    grey = picture((40, 56), dtype)
    np.testing.assert_array_equal(jitter_stains(grey, sample_rng(0, 0, 1), 0.2), grey)


def test_stains_are_changed_in_optical_density():
    """Twice the tissue has twice the density before and after, over the same light: no other space has that."""
    rng = np.random.default_rng(0)
    density = rng.uniform(0.05, 0.9, (20, 20, 3))
    once, twice = (
        np.log(jitter_stains(np.exp(-k * density).astype(np.float32), sample_rng(0, 0, 4), 0.1).astype(np.float64))
        for k in (1, 2)
    )
    whole = (once < 0).all(axis=2) & (twice < 0).all(axis=2)  # elsewhere the light is clipped
    assert whole.mean() > 0.8
    light = (2 * once - twice)[whole]
    np.testing.assert_allclose(light, np.broadcast_to(light.mean(axis=0), light.shape), atol=1e-4)


def test_augment_adds_what_is_asked_for():
    pixels = picture((40, 56, 3), np.uint8)
    still = {"rotate": 0, "shift": 0, "shear": 0, "zoom": 0, "flip": False}
    np.testing.assert_array_equal(augment(pixels, sample_rng(0, 0, 0), **still), pixels)
    np.testing.assert_array_equal(augment(pixels, sample_rng(0, 0, 0)), affine(pixels, sample_rng(0, 0, 0)))
    for extra in ({"elastic": 0.05}, {"stain_jitter": 0.2}):
        assert not np.array_equal(augment(pixels, sample_rng(0, 0, 0), **still, **extra), pixels)
