"""Thresholds and their intervals against scipy, against counting, and against a simulation of their promise."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.errors import ArgumentError
from normscan.scoring import calibrate as c

TARGETS = [0.5, 0.8, 0.9, 0.95, 0.99, 0.995]


@pytest.mark.parametrize(("target", "expected"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_needed_is_the_first_count_with_a_threshold(target: float, expected: int) -> None:
    assert c.needed(target) == expected
    scores = np.arange(expected, dtype=float)
    assert c.calibrate(scores[:-1], target) is None
    found = c.calibrate(scores, target)
    assert found is not None
    assert found.threshold == expected - 1  # the largest score, and no more is asked for


@pytest.mark.parametrize("target", TARGETS)
def test_rank_is_exact_for_every_count(target: float) -> None:
    for n in range(c.needed(target), 400):
        rank = math.ceil((n + 1) * Fraction(str(target)))
        scores = np.random.default_rng(n).permutation(n).astype(float)
        found = c.calibrate(scores, target)
        assert found is not None
        assert found.threshold == rank - 1, n
        assert (found.rule, found.n, found.target_specificity) == ("order_statistic", n, target)


def test_a_target_with_rounding_error_means_its_decimal() -> None:
    assert c.needed(1 - 0.05) == c.needed(float(np.float32(0.95))) == 19
    assert c.needed(1 - 0.7) == c.needed(0.3) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("extra", [0, 1, 60, 1000])
def test_interval_is_the_beta_distribution(target: float, extra: int) -> None:
    n = c.needed(target) + extra
    found = c.calibrate(np.arange(n, dtype=float), target)
    assert found is not None
    rank = math.ceil((n + 1) * Fraction(str(target)))
    expected = scipy.stats.beta(rank, n + 1 - rank).ppf([0.025, 0.975])
    np.testing.assert_allclose(found.interval, expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20_000), st.data())
def test_clopper_pearson_is_the_exact_binomial_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    exact = scipy.stats.binomtest(k, n).proportion_ci(0.9, method="exact")
    np.testing.assert_allclose(c.clopper_pearson(k, n, 0.9), (exact.low, exact.high), rtol=0, atol=1e-9)


def test_incomplete_beta_far_out() -> None:
    for a, b in [(1, 1), (1, 1e6), (5e5, 5e5), (1e6, 3), (0.5, 0.5), (19, 1)]:
        for x in [1e-12, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-6, scipy.stats.beta(a, b).median()]:
            expected = scipy.stats.beta(a, b).cdf(x)
            assert c._incomplete_beta(x, a, b) == pytest.approx(expected, abs=1e-9)
    assert (c._incomplete_beta(0.0, 2, 3), c._incomplete_beta(1.0, 2, 3)) == (0.0, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(19, 2000), st.integers(1, 2000), st.sampled_from([0.5, 0.9, 0.95]))
def test_prediction_interval_is_beta_binomial(n: int, m: int, target: float) -> None:
    rank = math.ceil((n + 1) * Fraction(str(target)))
    law = scipy.stats.betabinom(m, rank, n + 1 - rank)
    low, high = (round(share * m) for share in c.prediction_interval(n, m, target))
    # By its meaning rather than by ppf, whose rounding may sit on either side of a step.
    assert law.cdf(low) >= 0.025 - 1e-9
    assert law.cdf(low - 1) <= 0.025 + 1e-9
    assert law.cdf(high) >= 0.975 - 1e-9
    assert law.cdf(high - 1) <= 0.975 + 1e-9


def test_the_promise_holds_on_new_images() -> None:
    """n = 60, target 95 %: the order statistic holds 58/61 = 95.1 %, numpy's quantile 93.5 %."""
    random = np.random.default_rng(7)
    repeats, n, m = 3000, 60, 50
    observed, quantile, inside, covered = [], [], 0, 0
    low, high = c.prediction_interval(n, m, 0.95)
    for _ in range(repeats):
        scores, new = random.standard_normal(n), random.standard_normal(m)
        found = c.calibrate(scores, 0.95)
        assert found is not None
        observed.append(np.mean(new <= found.threshold))
        quantile.append(np.mean(new <= np.quantile(scores, 0.95)))
        inside += low <= observed[-1] <= high
        covered += found.interval[0] <= scipy.stats.norm.cdf(found.threshold) <= found.interval[1]
    assert np.mean(observed) == pytest.approx(58 / 61, abs=0.003)
    assert np.mean(quantile) < 0.94
    assert 0.95 <= inside / repeats < 0.995
    assert covered / repeats == pytest.approx(0.95, abs=0.015)


def test_ties_keep_the_promise() -> None:
    found = c.calibrate([1.0] * 30 + [2.0] * 10, 0.8)
    assert found is not None
    assert found.threshold == 2.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_counted(bad: float) -> None:
    with pytest.raises(ArgumentError, match="2 of 42 scores are not finite"):
        c.calibrate([0.0] * 40 + [bad, bad])


def test_wrong_arguments_say_what_was_found() -> None:
    with pytest.raises(ArgumentError, match=r"shape \[3, 2\]"):
        c.calibrate(np.zeros((3, 2)))
    for target in (0.0, 1.0, -1, 1.5, math.nan, 0.9999999):
        with pytest.raises(ArgumentError, match="target specificity"):
            c.calibrate([1.0], target)
    with pytest.raises(ArgumentError, match=r"18 calibration scores give no threshold.*19 are needed"):
        c.prediction_interval(18, 100)
    with pytest.raises(ArgumentError, match="n_test is 0"):
        c.prediction_interval(19, 0)
    with pytest.raises(ArgumentError, match="3 of 2"):
        c.clopper_pearson(3, 2)
    with pytest.raises(ArgumentError, match="confidence is 1"):
        c.clopper_pearson(1, 2, 1)
    assert c.calibrate([]) is None
