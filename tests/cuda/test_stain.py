"""The comparison of stains on the GPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

from arrays import LAYOUTS, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import stain as reference
from tolerances import assert_close

OPTIONS = {
    "residual": {"metric": "residual"},
    "residual, cut": {"metric": "residual", "cut": 0.3},
    "ratio": {"metric": "red_ratio"},
    "ratio in windows": {"metric": "red_ratio", "window": 15},
    "ratio, saturated": {"metric": "red_ratio", "hue": (300.0, 60.0), "least_saturation": 0.4, "window": 35},
    "ratio of one pixel": {"metric": "red_ratio", "hue": (90.0, 200.0), "window": 1},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def pair_of(*shape, dtype="float32"):
    return uniform(*shape, dtype=dtype, seed=1), uniform(*shape, dtype=dtype, seed=2)


def run(gpu, a, b, place=np.asarray, **options):
    out = gpu.put(place(unwritten(a.shape[0], *a.shape[2:], dtype=a.dtype)))
    gpu.call("stain", gpu.put(place(a)), gpu.put(place(b)), out, **options)
    return gpu.get(out)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_option
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 19, 7), (1, 3, 70, 33), (1, 3, 5, 140), (0, 3, 4, 4)])
def test_shapes(gpu, shape, options, dtype):
    a, b = pair_of(*shape, dtype=dtype)
    assert_close(run(gpu, a, b, **options), reference.stain(a, b, **options), "stain")


@pytest.mark.parametrize("layout", LAYOUTS)
@every_option
def test_layouts(gpu, options, layout):
    a, b = pair_of(3, 3, 13, 21)
    assert_close(run(gpu, a, b, LAYOUTS[layout], **options), reference.stain(a, b, **options), "stain")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_colours_of_8_bits_are_those_of_the_cpu(gpu, dtype):
    """On the ends of the range, too."""
    colours = np.random.default_rng(0).integers(0, 18, (2, 3, 40, 50)) * 15
    b = colours.astype(dtype) / np.dtype(dtype).type(255)
    for options in ({"metric": "residual", "cut": 60 / 255}, {"metric": "red_ratio", "window": 1}):
        expected = unwritten(2, 40, 50, dtype=dtype)
        _native.stain(np.zeros_like(b), b, expected, **options)
        np.testing.assert_array_equal(run(gpu, np.zeros_like(b), b, **options), expected)


@every_option
def test_what_is_not_finite_reaches_as_far_as_on_the_cpu(gpu, options):
    a, b = pair_of(2, 3, 40, 30)
    a[1, 2, 20, 3] = np.nan
    expected = unwritten(2, 40, 30)
    _native.stain(a, b, expected, **options)
    found = np.isnan(run(gpu, a, b, **options))
    assert found.any()
    np.testing.assert_array_equal(found, np.isnan(expected))


def test_wrong_arguments(gpu):
    a, b = (gpu.put(x) for x in pair_of(2, 3, 4, 4))
    out, room = gpu.put(unwritten(2, 4, 4)), gpu.put(np.zeros(384, np.uint8))
    with pytest.raises(ArgumentError, match=r"stain: out has shape \[3,4,4\], expected \[N,H,W\] = \[2,4,4\]"):
        gpu.ops.stain(a, b, gpu.put(unwritten(3, 4, 4)), workspace=room, metric="residual")
    with pytest.raises(ArgumentError, match=r"stain: window is 4, expected an odd number"):
        gpu.ops.stain(a, b, out, workspace=room, metric="red_ratio", window=4)
    with pytest.raises(ArgumentError, match=r"stain: workspace has 383 bytes, expected at least 384"):
        gpu.ops.stain(a, b, out, workspace=room[:383], metric="red_ratio")
