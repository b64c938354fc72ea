"""The native aggregation from images to patients against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrays import LAYOUTS, SIDES, Array, normal, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import aggregate as reference
from tolerances import assert_close

METHODS = reference.METHODS


def values(method: str, count: int) -> Array:
    """Probabilities where the method takes nothing else."""
    return (uniform if method == "noisy_or" else normal)(count, dtype="float64")


def run(scores: Array, groups: Array, count: int, method: str, parameter: float = 0.0) -> Array:
    out = unwritten(count, dtype="float64")
    _native.aggregate(scores, groups, out, method=method, parameter=parameter)
    return out


@given(st.integers(1, 12), st.integers(0, 60), st.sampled_from(METHODS))
def test_any_grouping(count: int, others: int, method: str) -> None:
    generator = np.random.default_rng([count, others])
    groups = generator.permutation(np.concatenate([np.arange(count), generator.integers(0, count, others)]))
    scores = values(method, count + others)
    expected = reference.aggregate(scores, groups, count, method=method, parameter=0.3)
    assert_close(run(scores, groups, count, method, 0.3), expected, "aggregate")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mean", [2.0, 5.0]),
        ("max", [3.0, 5.0]),
        ("fraction", [0.5, 1.0]),
        ("topk", [2.0, 5.0]),
    ],
)
def test_by_hand(method: str, expected: list[float]) -> None:
    scores, groups = np.array([1.0, 5.0, 3.0]), np.array([0, 1, 0])
    np.testing.assert_array_equal(run(scores, groups, 2, method, 1.0), expected)


@pytest.mark.parametrize(
    ("share", "expected"), [(1e-9, 9.0), (0.1, 9.0), (0.11, 8.5), (0.2, 8.5), (0.21, 8.0), (0.5, 7.0), (1.0, 4.5)]
)
def test_topk_is_the_mean_of_the_highest_rounded_up_and_at_least_of_one(share: float, expected: float) -> None:
    scores = np.random.default_rng(0).permutation(10).astype(np.float64)
    assert run(scores, np.zeros(10, np.int64), 1, "topk", share)[0] == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.0, 0.0], 0.0), ([0.5, 0.5], 0.75), ([0.3, 1.0], 1.0), ([1.0, 1.0], 1.0), ([0.1, 0.2, 0.3], 0.496)],
)
def test_noisy_or_by_hand(scores: list[float], expected: float) -> None:
    found = run(np.array(scores), np.zeros(len(scores), np.int64), 1, "noisy_or")[0]
    assert found == pytest.approx(expected, rel=1e-15)
    assert not np.signbit(found)


def test_noisy_or_of_many_small_chances_keeps_its_digits() -> None:
    """Each is lost beside 1: the plain product says that there is no chance at all."""
    chances = np.full(1000, 1e-18)
    assert 1 - np.prod(1 - chances) == 0
    assert run(chances, np.zeros(1000, np.int64), 1, "noisy_or")[0] == pytest.approx(1e-15, rel=1e-13)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_scores_does_not_matter(method: str, size: int) -> None:
    scores, groups = values(method, 3 * size), np.arange(3 * size) % 3
    order = np.random.default_rng(1).permutation(3 * size)
    found = run(scores[order], groups[order], 3, method, 0.3)
    assert_close(found, run(scores, groups, 3, method, 0.3), "aggregate")
    if method in ("max", "topk", "fraction"):
        np.testing.assert_array_equal(found, run(scores, groups, 3, method, 0.3))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_layouts(method: str, layout: str) -> None:
    place, scores, groups = LAYOUTS[layout], values(method, 19), np.arange(19) % 4
    expected = reference.aggregate(scores, groups, 4, method=method, parameter=0.3)
    assert_close(run(place(scores), place(groups), 4, method, 0.3), expected, "aggregate")


def test_fraction_counts_what_is_above_and_not_at_the_threshold() -> None:
    assert run(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4, np.int64), 1, "fraction", 2.0)[0] == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_nan_makes_its_group_nan(method: str) -> None:
    found = run(np.array([1.0, np.nan, 0.5]), np.array([0, 0, 1]), 2, method, 1.0)
    assert math.isnan(found[0])
    assert math.isfinite(found[1])


@pytest.mark.parametrize("method", METHODS)
def test_no_scores_and_no_groups(method: str) -> None:
    assert run(np.empty(0), np.empty(0, np.int64), 0, method, 1.0).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_a_group_without_members_is_refused(method: str) -> None:
    with pytest.raises(ArgumentError, match=r"aggregate.*group.*\b1\b"):
        run(np.array([1.0, 0.5]), np.array([0, 2]), 3, method, 1.0)


@pytest.mark.parametrize("group", [-1, 2, 2**40])
def test_a_group_out_of_range_is_refused(group: int) -> None:
    with pytest.raises(ArgumentError, match=rf"aggregate.*group.*{group}"):
        run(np.array([1.0, 2.0, 3.0]), np.array([0, 1, group]), 2, "mean")


@pytest.mark.parametrize("wrong", [-1e-9, 1.5, np.inf, -np.inf])
def test_noisy_or_of_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ArgumentError, match=rf"aggregate: scores\[2\] is {wrong:g}, expected a probability in 0..1"):
        run(np.array([0.0, 1.0, wrong]), np.zeros(3, np.int64), 1, "noisy_or")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, np.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ArgumentError, match=r"aggregate: parameter is .*, expected a share in \(0, 1\] for topk"):
        run(np.ones(3), np.zeros(3, np.int64), 1, "topk", share)


def test_a_threshold_that_is_nan_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"aggregate: parameter is NaN, expected a threshold"):
        run(np.ones(3), np.zeros(3, np.int64), 1, "fraction", np.nan)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"median.*fraction"):
        run(np.ones(1), np.zeros(1, np.int64), 1, "median")


def test_scores_and_groups_of_different_lengths_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"aggregate.*groups.*2.*3|aggregate.*groups.*3.*2"):
        run(np.ones(3), np.zeros(2, np.int64), 1, "mean")
