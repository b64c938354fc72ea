"""The native pooling against the reference, and the reference against numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native
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


def run(map_: Array, method: str, parameter: float) -> Array:
    out = unwritten(map_.shape[0], dtype=map_.dtype)
    _native.pool(map_, out, method=method, parameter=parameter)
    return out


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_reference_components_agree_with_scipy(mask: Array) -> None:
    labels, _ = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
    assert reference.largest_component(mask) == np.bincount(labels.ravel())[1:].max(initial=0)


@pytest.mark.parametrize("parameter", [0.0, 0.1, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("side", SIDES)
def test_reference_quantile_agrees_with_numpy(side: int, parameter: float) -> None:
    map_ = normal(2, side, side, dtype="float64")
    found = reference.pool(map_, method="quantile", parameter=parameter)
    np.testing.assert_allclose(found, np.quantile(map_, parameter, axis=(1, 2)), rtol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("method", "parameter"), RULES)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, method: str, parameter: float, dtype: str) -> None:
    map_ = normal(2, side, side, dtype=dtype)
    assert_close(run(map_, method, parameter), reference.pool(map_, method=method, parameter=parameter), "pool")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("method", "parameter"), RULES)
def test_layouts(method: str, parameter: float, layout: str) -> None:
    map_ = normal(3, 19, 23)
    found = run(LAYOUTS[layout](map_), method, parameter)
    assert_close(found, reference.pool(map_, method=method, parameter=parameter), "pool")


@given(st.integers(0, 3), st.integers(1, 30), st.integers(1, 30), st.sampled_from(RULES), st.sampled_from(FLOATS))
def test_any_shape(images: int, height: int, width: int, rule: tuple[str, float], dtype: str) -> None:
    map_ = normal(images, height, width, dtype=dtype)
    assert_close(run(map_, *rule), reference.pool(map_, method=rule[0], parameter=rule[1]), "pool")


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)), st.sampled_from(FLOATS))
def test_area_of_any_mask(mask: Array, dtype: str) -> None:
    map_ = mask[None].astype(dtype)
    assert_close(run(map_, "area", 0.5), reference.pool(map_, method="area", parameter=0.5), "pool")


@pytest.mark.parametrize(
    ("picture", "largest"),
    [
        ("#.#/.#./#.#", 5),  # 8-connected: corners touch
        ("##./.../.##", 2),
        ("#####/#...#/#.#.#/#...#/#####", 16),  # a ring around a dot
        ("#...#/#...#/#####", 9),  # two columns that turn out to be one
        ("#.#.#/#.#.#/#####", 11),
        ("####./....#/.####/#..../.####", 14),  # a snake
        (".../...", 0),
    ],
)
def test_area_by_hand(picture: str, largest: int) -> None:
    rows = picture.split("/")
    map_ = np.array([[float(pixel == "#") for pixel in row] for row in rows], np.float32)[None]
    assert run(map_, "area", 0.5)[0] == pytest.approx(largest / map_.size, rel=1e-6)


def test_area_counts_what_is_above_and_not_at_the_threshold() -> None:
    map_ = np.array([[[0.5, 0.75, 0.5, 0.25]]], np.float32)
    assert run(map_, "area", 0.5)[0] == 0.25


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.25, 1), (0.2, 1), (0.26, 2), (1.0, 4)])
def test_topk_rounds_the_count_up(share: float, count: int) -> None:
    map_ = np.array([[[1.0, 8.0], [4.0, 2.0]]], np.float32)
    assert run(map_, "topk", share)[0] == pytest.approx(sum([8.0, 4.0, 2.0, 1.0][:count]) / count, rel=1e-6)


def test_topk_of_one_percent_of_a_hundred_pixels_is_the_largest() -> None:
    map_ = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    assert run(map_, "topk", 0.01)[0] == 99


@pytest.mark.parametrize(("method", "parameter"), [rule for rule in RULES if rule[0] != "area"])
def test_equal_pixels_pool_to_themselves(method: str, parameter: float) -> None:
    assert run(np.full((1, 19, 7), 0.7, np.float32), method, parameter)[0] == np.float32(0.7)


def test_the_mean_of_a_large_map_is_summed_in_double() -> None:
    map_ = np.full((1, 1500, 1500), 0.1, np.float32)  # a float32 sum is off by 1e-4 and more here
    np.testing.assert_allclose(run(map_, "mean", 0.0), [np.float32(0.1)], rtol=1e-7)


@pytest.mark.parametrize("spot", [(0, 0), (3, 4), (6, 8)])
@pytest.mark.parametrize(("method", "parameter"), RULES)
def test_a_nan_anywhere_makes_nan(method: str, parameter: float, spot: tuple[int, int]) -> None:
    map_ = normal(3, 7, 9)
    map_[1][spot] = np.nan
    found = run(map_, method, parameter)
    assert math.isnan(found[1])
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize(
    ("method", "parameter"),
    [
        ("topk", 0.0),
        ("topk", 1.1),
        ("topk", -0.5),
        ("topk", np.nan),
        ("quantile", -0.1),
        ("quantile", 1.1),
        ("quantile", np.nan),
        ("area", np.nan),
    ],
)
def test_a_parameter_out_of_range_is_refused(method: str, parameter: float) -> None:
    with pytest.raises(ArgumentError, match=rf"pool.*{method}"):
        run(normal(1, 4, 4), method, parameter)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"median.*quantile"):
        run(normal(1, 4, 4), "median", 0.0)
