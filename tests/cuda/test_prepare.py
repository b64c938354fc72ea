"""The preparation of pictures on the GPU, and its inverse, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, normal, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import prepare as reference
from tolerances import assert_close

RESIZES = reference.RESIZES
DTYPES = ("uint8", "uint16", "float32")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIDE = st.integers(1, 40)


def picture(*shape, dtype="uint8"):
    """Noise over the whole range of the dtype."""
    if dtype == "float32":
        return uniform(*shape)
    return np.random.default_rng(shape).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def check(gpu, image, size, resize, channels=3, place=np.asarray):
    mean, std = MEAN[:channels], STD[:channels]
    out = gpu.put(place(unwritten(channels, *size)))
    gpu.call("prepare", gpu.put(place(image)), out, resize=resize, mean=mean, std=std)
    assert_close(gpu.get(out), reference.prepare(image, size, resize=resize, mean=mean, std=std), "prepare")


def check_restore(gpu, map_, size, resize, place=np.asarray):
    out = gpu.put(place(unwritten(*size)))
    gpu.call("restore", gpu.put(place(map_)), out, resize=resize)
    assert_close(gpu.get(out), reference.restore(map_, size, resize=resize), "restore")


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("new_side", [1, 19, 111])
@pytest.mark.parametrize("side", [1, 19, 111])
def test_sides(gpu, side, new_side, resize):
    check(gpu, picture(side, 20, 3), (new_side, 16), resize)
    check(gpu, picture(20, side, 3), (16, new_side), resize)
    check_restore(gpu, normal(side, 20), (new_side, 16), resize)
    check_restore(gpu, normal(20, side), (16, new_side), resize)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(19, 32), (19, 31, 1), (19, 32, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_channels(gpu, dtype, shape, channels, resize):
    check(gpu, picture(*shape, dtype=dtype), (16, 24), resize, channels)


@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed_batch", "misaligned"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(gpu, dtype, layout):
    check(gpu, picture(19, 32, 3, dtype=dtype), (16, 24), "fit", place=LAYOUTS[layout])
    check(gpu, picture(19, 32, 3, dtype=dtype)[:, :, :1], (16, 24), "fit", place=LAYOUTS[layout])
    check_restore(gpu, normal(19, 32), (40, 33), "crop", LAYOUTS[layout])


@pytest.mark.parametrize("shape", [(3, 3333), (3, 1200, 3)])
@pytest.mark.parametrize("width", [1, 70])
def test_a_picture_wider_than_shared_memory(gpu, width, shape):
    check(gpu, picture(*shape), (2, width), "stretch")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES), st.sampled_from(DTYPES), st.sampled_from([1, 3]))
def test_any_shape(gpu, height, width, new_height, new_width, resize, dtype, channels):
    check(gpu, picture(height, width, channels, dtype=dtype), (new_height, new_width), resize)
    check_restore(gpu, normal(height, width), (new_height, new_width), resize)


def test_fit_pads_with_zero_before_the_normalisation(gpu):
    out = gpu.put(unwritten(1, 5, 4))
    gpu.call("prepare", gpu.put(np.full((2, 4), 255, np.uint8)), out, resize="fit", mean=[0.5], std=[0.25])
    np.testing.assert_allclose(gpu.get(out)[0, :, 0], [-2, 2, 2, -2, -2], rtol=1e-6)


@pytest.mark.parametrize("resize", RESIZES)
def test_nan_spreads_as_far_as_on_the_cpu(gpu, resize):
    image, map_ = picture(19, 32, 3, dtype="float32"), normal(19, 32)
    image[9, 14, 1] = map_[9, 14] = np.nan
    expected, out = unwritten(3, 12, 30), gpu.put(np.zeros((3, 12, 30), np.float32))
    options = {"resize": resize, "mean": MEAN, "std": STD}
    _native.prepare(image, expected, **options)
    gpu.call("prepare", gpu.put(image), out, **options)
    np.testing.assert_array_equal(np.isnan(gpu.get(out)), np.isnan(expected))
    expected, out = unwritten(30, 40), gpu.put(np.zeros((30, 40), np.float32))
    _native.restore(map_, expected, resize=resize)
    gpu.call("restore", gpu.put(map_), out, resize=resize)
    np.testing.assert_array_equal(np.isnan(gpu.get(out)), np.isnan(expected))


def test_nothing_to_do(gpu):
    gpu.call("restore", gpu.put(normal(3, 4)), gpu.put(unwritten(0, 5)), resize="fit")


def test_wrong_arguments(gpu):
    image, out = gpu.put(picture(4, 5, 3)), gpu.put(unwritten(3, 2, 2))
    with pytest.raises(ArgumentError, match=r'prepare: resize is "pad", expected stretch, fit or crop'):
        gpu.call("prepare", image, out, resize="pad", mean=MEAN, std=STD)
    with pytest.raises(ArgumentError, match=r"prepare: mean has 1 entries, out has 3 channels"):
        gpu.call("prepare", image, out, resize="fit", mean=MEAN[:1], std=STD)
    with pytest.raises(ArgumentError, match=r"prepare: image has dtype|prepare: image is float64, expected uint8"):
        gpu.call("prepare", gpu.put(normal(4, 5, dtype="float64")), out, resize="fit", mean=MEAN, std=STD)
    with pytest.raises(ArgumentError, match=r"restore: map is empty, shape \[0,4\]"):
        gpu.call("restore", gpu.put(normal(0, 4)), gpu.put(unwritten(4, 4)), resize="fit")
