"""The native aggregation from images to patients against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrays import Array, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import aggregate as reference
from tolerances import assert_close

METHODS = reference.METHODS


def run(scores: Array, groups: Array, count: int, method: str, parameter: float = 0.0) -> Array:
    out = unwritten(count, dtype="float64")
    _native.aggregate(scores, groups, out, method=method, parameter=parameter)
    return out


@given(st.integers(1, 12), st.integers(0, 60), st.sampled_from(METHODS))
def test_any_grouping(count: int, others: int, method: str) -> None:
    generator = np.random.default_rng([count, others])
    groups = generator.permutation(np.concatenate([np.arange(count), generator.integers(0, count, others)]))
    scores = normal(count + others, dtype="float64")
    expected = reference.aggregate(scores, groups, count, method=method, parameter=0.3)
    assert_close(run(scores, groups, count, method, 0.3), expected, "aggregate")


@pytest.mark.parametrize(("method", "expected"), [("mean", [2.0, 5.0]), ("max", [3.0, 5.0]), ("fraction", [0.5, 1.0])])
def test_by_hand(method: str, expected: list[float]) -> None:
    scores, groups = np.array([1.0, 5.0, 3.0]), np.array([0, 1, 0])
    np.testing.assert_array_equal(run(scores, groups, 2, method, 1.0), expected)


def test_fraction_counts_what_is_above_and_not_at_the_threshold() -> None:
    assert run(np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4, np.int64), 1, "fraction", 2.0)[0] == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_nan_makes_its_group_nan(method: str) -> None:
    found = run(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1]), 2, method)
    assert math.isnan(found[0])
    assert math.isfinite(found[1])


@pytest.mark.parametrize("method", METHODS)
def test_no_scores_and_no_groups(method: str) -> None:
    assert run(np.empty(0), np.empty(0, np.int64), 0, method).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_a_group_without_members_is_refused(method: str) -> None:
    with pytest.raises(ArgumentError, match=r"aggregate.*group.*\b1\b"):
        run(np.array([1.0, 2.0]), np.array([0, 2]), 3, method)


@pytest.mark.parametrize("group", [-1, 2, 2**40])
def test_a_group_out_of_range_is_refused(group: int) -> None:
    with pytest.raises(ArgumentError, match=rf"aggregate.*group.*{group}"):
        run(np.array([1.0, 2.0, 3.0]), np.array([0, 1, group]), 2, "mean")


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"median.*fraction"):
        run(np.ones(1), np.zeros(1, np.int64), 1, "median")


def test_scores_and_groups_of_different_lengths_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"aggregate.*groups.*2.*3|aggregate.*groups.*3.*2"):
        run(np.ones(3), np.zeros(2, np.int64), 1, "mean")
