"""Gaussian smoothing on the GPU against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import smooth as reference
from tolerances import assert_close


def run(gpu, map_, sigma, place=np.asarray):
    out = gpu.put(place(unwritten(*map_.shape, dtype=map_.dtype)))
    gpu.call("smooth", gpu.put(place(map_)), out, sigma=sigma)
    return gpu.get(out)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 1.5, 9.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 19, 7), (1, 33, 111), (1, 111, 1)])
def test_shapes(gpu, shape, sigma, dtype):
    map_ = normal(*shape, dtype=dtype)
    assert_close(run(gpu, map_, sigma), reference.smooth(map_, sigma=sigma), "smooth")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout):
    map_ = normal(3, 35, 9)
    assert_close(run(gpu, map_, 1.5, LAYOUTS[layout]), reference.smooth(map_, sigma=1.5), "smooth")


def test_a_kernel_far_wider_than_the_map(gpu):
    map_ = normal(1, 5, 3)
    assert_close(run(gpu, map_, 40.0), reference.smooth(map_, sigma=40.0), "smooth")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0, 4.0, 17.0]))
def test_any_shape(gpu, images, height, width, sigma):
    map_ = normal(images, height, width)
    assert_close(run(gpu, map_, sigma), reference.smooth(map_, sigma=sigma), "smooth")


def test_nan_spreads_as_far_as_on_the_cpu(gpu):
    map_ = normal(2, 30, 40)
    map_[1, 15, 3] = np.nan
    expected = unwritten(2, 30, 40)
    _native.smooth(map_, expected, sigma=1.0)
    np.testing.assert_array_equal(np.isnan(run(gpu, map_, 1.0)), np.isnan(expected))


def test_wrong_arguments(gpu):
    map_, room = gpu.put(normal(2, 4, 4)), gpu.put(np.zeros(128, np.uint8))
    with pytest.raises(ArgumentError, match=r"smooth: out has shape \[3,4,4\], map has \[2,4,4\]"):
        gpu.ops.smooth(map_, gpu.put(unwritten(3, 4, 4)), workspace=room, sigma=1.0)
    with pytest.raises(ArgumentError, match=r"smooth: sigma is -1 pixels"):
        gpu.ops.smooth(map_, gpu.put(unwritten(2, 4, 4)), workspace=room, sigma=-1.0)
    with pytest.raises(ArgumentError, match=r"smooth: workspace has 127 bytes, expected at least 128"):
        gpu.ops.smooth(map_, gpu.put(unwritten(2, 4, 4)), workspace=room[:127], sigma=1.0)
    with pytest.raises(ArgumentError, match=r"smooth: out shares memory with map"):
        gpu.ops.smooth(map_, map_, workspace=room, sigma=1.0)
