"""The paired comparison of two AUROCs, against DeLong's formula pair by pair and against resampling."""

from __future__ import annotations

import numpy as np
import pytest

from normscan.errors import ArgumentError
from normscan.scoring.metrics import auroc, average_precision
from normscan.scoring.paired import bootstrap_difference, compare_aurocs


def scored(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two correlated scores of which the second is better; some are tied."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3 == 0).astype(int)
    hard = rng.normal(size=n)
    first, second = (np.round(hard + rng.normal(size=n) + gain * labels, 1) for gain in (0.5, 1.8))
    return labels, first, second


def covariance_of_pairs(labels: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6, over all pairs."""
    rows = []
    for values in scores:
        difference = values[labels == 1][:, None] - values[labels == 0]
        rows.append((difference > 0) + 0.5 * (difference == 0))
    ten, one = np.stack([r.mean(1) for r in rows]), np.stack([r.mean(0) for r in rows])
    return np.cov(ten) / ten.shape[1] + np.cov(one) / one.shape[1]


def test_it_is_delong_s_formula() -> None:
    labels, first, second = scored()
    found = compare_aurocs(labels, first, second)
    s = covariance_of_pairs(labels, first, second)
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert found.difference == pytest.approx(auroc(labels, second) - auroc(labels, first), abs=1e-12)
    assert np.diff(found.interval)[0] == pytest.approx(2 * 1.959963984540054 * error, rel=1e-9)
    assert found.method == "delong"
    from scipy.stats import norm

    assert found.p == pytest.approx(2 * norm.sf(abs(found.difference) / error), rel=1e-9)


def test_the_order_turns_the_sign() -> None:
    labels, first, second = scored()
    one, other = compare_aurocs(labels, first, second), compare_aurocs(labels, second, first)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p == pytest.approx(other.p)


def test_equal_scores_do_not_differ() -> None:
    labels, first, _ = scored()
    found = compare_aurocs(labels, first, 2 * first + 1)
    assert (found.difference, found.interval, found.p) == (0.0, (0.0, 0.0), 1.0)


def test_a_difference_without_spread_has_no_p() -> None:
    found = compare_aurocs([0, 0, 1, 1], [3, 4, 1, 2], [1, 2, 3, 4])
    assert found.difference == 1.0
    assert found.p is None


def test_images_of_a_patient_count_together() -> None:
    """Every image twice: the same evidence, so the same interval but for the small-sample factor."""
    labels, first, second = scored()
    alone = compare_aurocs(labels, first, second)
    groups = [str(i) for i in range(len(labels))] * 2
    twice = compare_aurocs(np.tile(labels, 2), np.tile(first, 2), np.tile(second, 2), groups)
    assert twice.method == "clustered_delong"
    assert twice.difference == pytest.approx(alone.difference)
    assert np.diff(twice.interval)[0] == pytest.approx(np.diff(alone.interval)[0], rel=0.02)
    naive = compare_aurocs(np.tile(labels, 2), np.tile(first, 2), np.tile(second, 2))
    assert np.diff(naive.interval)[0] < 0.75 * np.diff(twice.interval)[0]


def test_under_chance_p_is_uniform() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(80) % 2
    p = [compare_aurocs(labels, *rng.normal(size=(2, 80))).p for _ in range(300)]
    assert 0.02 < np.mean(np.array(p, float) < 0.05) < 0.09


def test_too_few_images_are_told() -> None:
    with pytest.raises(ArgumentError, match="found 3 normal and 1 abnormal images, expected at least 2 of each"):
        compare_aurocs([0, 0, 0, 1], [1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(ArgumentError, match="all images are of one group"):
        compare_aurocs([0, 0, 1, 1], [1, 3, 2, 4], [1, 2, 3, 4], ["a"] * 4)


def test_the_bootstrap_of_an_auroc_is_near_delong() -> None:
    labels, first, second = scored(200)
    found = bootstrap_difference(auroc, labels, first, second)
    exact = compare_aurocs(labels, first, second)
    assert found.difference == pytest.approx(exact.difference)
    np.testing.assert_allclose(found.interval, exact.interval, atol=0.02)
    assert (found.p, found.method) == (None, "paired_bootstrap")


def test_the_bootstrap_draws_groups_whole() -> None:
    """Every image twice under one group: the interval of single images; taken apart, it is too narrow."""
    labels, first, second = scored(90)
    alone = bootstrap_difference(average_precision, labels, first, second)
    doubled = [np.tile(v, 2) for v in (labels, first, second)]
    together = bootstrap_difference(average_precision, *doubled, [str(i) for i in range(90)] * 2)
    apart = bootstrap_difference(average_precision, *doubled)
    assert np.diff(together.interval)[0] == pytest.approx(np.diff(alone.interval)[0], rel=0.1)
    assert np.diff(apart.interval)[0] < 0.85 * np.diff(together.interval)[0]
    assert bootstrap_difference(average_precision, labels, first, second) == alone
    assert bootstrap_difference(average_precision, labels, first, second, seed=1) != alone


def test_a_class_of_one_group_cannot_be_drawn() -> None:
    with pytest.raises(ArgumentError, match="normal images come from 1 group, expected at least 2"):
        bootstrap_difference(auroc, [0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4], ["a", "a", "b", "c"])
