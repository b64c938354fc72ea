"""Pooling on the GPU against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arrays import LAYOUTS, normal, unwritten
from normscan.errors import ArgumentError
from reference import pool as reference
from tolerances import assert_close

RULES = (
    ("mean", 0.0),
    ("max", 0.0),
    ("topk", 1.0),
    ("topk", 0.013),
    ("topk", 1e-9),
    ("quantile", 0.0),
    ("quantile", 0.337),
    ("quantile", 1.0),
    ("area", 0.25),
    ("area", -9.0),
    ("area", 9.0),
)
every_rule = pytest.mark.parametrize(("method", "parameter"), RULES)


def run(gpu, map_, method, parameter, place=np.asarray):
    out = gpu.put(unwritten(map_.shape[0], dtype=map_.dtype))
    gpu.call("pool", gpu.put(place(map_)), out, method=method, parameter=parameter)
    return gpu.get(out)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_rule
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 19, 7), (1, 5, 111), (1, 60, 41)])
def test_shapes(gpu, shape, method, parameter, dtype):
    map_ = normal(*shape, dtype=dtype)
    expected = reference.pool(map_, method=method, parameter=parameter)
    assert_close(run(gpu, map_, method, parameter), expected, "pool")


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout, method, parameter):
    map_ = normal(2, 19, 63)
    expected = reference.pool(map_, method=method, parameter=parameter)
    found = run(gpu, map_, method, parameter, LAYOUTS[layout])
    assert_close(found, expected, "pool")
    np.testing.assert_array_equal(found, run(gpu, map_, method, parameter))


def test_a_map_of_several_parts(gpu):
    map_ = normal(2, 150, 120)
    for method in ("mean", "max"):
        assert_close(run(gpu, map_, method, 0.0), reference.pool(map_, method=method), "pool")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2), st.integers(1, 30), st.integers(1, 30), st.sampled_from(RULES))
def test_any_shape(gpu, images, height, width, rule):
    map_ = normal(images, height, width)
    assert_close(run(gpu, map_, *rule), reference.pool(map_, method=rule[0], parameter=rule[1]), "pool")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_area_of_any_mask(gpu, mask):
    map_ = mask[None].astype(np.float32)
    assert_close(run(gpu, map_, "area", 0.5), reference.pool(map_, method="area", parameter=0.5), "pool")


@pytest.mark.parametrize("picture", ["#.#/.#./#.#", "#####/#...#/#.#.#/#...#/#####", "####./....#/.####/#..../.####"])
def test_area_by_hand(gpu, picture):
    map_ = np.array([[float(pixel == "#") for pixel in row] for row in picture.split("/")], np.float32)[None]
    assert_close(run(gpu, map_, "area", 0.5), reference.pool(map_, method="area", parameter=0.5), "pool")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(np.float32, (1, 6, 7), elements=st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-40, 0.25, 3.0])),
    st.sampled_from([("topk", 0.3), ("quantile", 0.5), ("quantile", 0.91), ("max", 0.0)]),
)
def test_ties_and_every_sign(gpu, map_, rule):
    with np.errstate(invalid="ignore"):
        expected = reference.pool(map_, method=rule[0], parameter=rule[1])
    found = run(gpu, map_, *rule)
    if np.isfinite(expected).all():
        assert_close(found, expected, "pool")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule[0] != "area"])
def test_equal_pixels_pool_to_themselves(gpu, rule):
    assert run(gpu, np.full((1, 19, 7), 0.7, np.float32), *rule)[0] == np.float32(0.7)


@every_rule
def test_a_nan_anywhere_makes_nan(gpu, method, parameter):
    map_ = normal(2, 7, 9)
    map_[1, 6, 8] = np.nan
    np.testing.assert_array_equal(np.isnan(run(gpu, map_, method, parameter)), [False, True])


def test_wrong_arguments(gpu):
    map_, out, none = gpu.put(normal(2, 4, 4)), gpu.put(unwritten(2)), gpu.put(np.empty(0, np.uint8))
    with pytest.raises(ArgumentError, match=r"pool: out has shape \[1\], expected \[N\] = \[2\]"):
        gpu.ops.pool(map_, out[:1], workspace=none, method="max")
    with pytest.raises(ArgumentError, match=r"pool: parameter is 0, expected a share in \(0, 1\] for topk"):
        gpu.ops.pool(map_, out, workspace=none, method="topk")
    with pytest.raises(ArgumentError, match=r"median.*quantile"):
        gpu.ops.pool(map_, out, workspace=none, method="median")
    with pytest.raises(ArgumentError, match=r"pool: workspace has 0 bytes, expected at least 16"):
        gpu.ops.pool(map_, out, workspace=none, method="mean")
