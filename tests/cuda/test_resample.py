"""Bilinear resampling on the GPU against float64."""

from __future__ import annotations

import numpy as np
import pytest

from arrays import LAYOUTS, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference.resample import resample
from tolerances import assert_close


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "to"), [((1, 1), (19, 3)), ((19, 7), (111, 19)), ((8, 8), (3, 5)), ((5, 4), (5, 4))])
def test_sizes(gpu, size, to, dtype):
    map_, out = normal(2, *size, dtype=dtype), gpu.put(unwritten(2, *to, dtype=dtype))
    gpu.call("resample", gpu.put(map_), out)
    assert_close(gpu.get(out), resample(map_, to), "resample")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout):
    map_ = normal(3, 6, 5)
    out = gpu.put(LAYOUTS[layout](unwritten(3, 13, 9)))
    gpu.call("resample", gpu.put(LAYOUTS[layout](map_)), out)
    assert_close(gpu.get(out), resample(map_, (13, 9)), "resample")


def test_nan_spreads_as_far_as_on_the_cpu(gpu):
    map_ = normal(1, 4, 4)
    map_[0, 1, 2] = np.nan
    expected, out = unwritten(1, 8, 8), gpu.put(np.zeros((1, 8, 8), np.float32))
    _native.resample(map_, expected)
    gpu.call("resample", gpu.put(map_), out)
    np.testing.assert_array_equal(np.isnan(gpu.get(out)), np.isnan(expected))


def test_empty_batch(gpu):
    gpu.call("resample", gpu.put(normal(0, 4, 4)), gpu.put(unwritten(0, 8, 8)))


def test_wrong_arguments(gpu):
    with pytest.raises(ArgumentError, match="resample: out has 3 images, map has 2"):
        gpu.call("resample", gpu.put(normal(2, 4, 4)), gpu.put(unwritten(3, 8, 8)))
