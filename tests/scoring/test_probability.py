"""Platt's calibration against scipy's optimiser, and what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from normscan.errors import ArgumentError
from normscan.scoring.probability import platt


def loss(parameters: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    ones, zeros = (y == 1).sum(), (y == 0).sum()
    target = np.where(y == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    logit = parameters[0] * x + parameters[1]
    return float((np.logaddexp(0, logit) - target * logit).sum())


@given(st.integers(0, 10_000), st.integers(5, 200), st.floats(-3, 3), st.floats(0.1, 30))
def test_nothing_is_likelier(seed: int, count: int, shift: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    y = np.append(rng.integers(0, 2, count), [0, 1])
    x = size * (rng.normal(size=count + 2) + shift * y)
    found = np.array(platt(x, y))
    best = minimize(loss, found, args=(x, y), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    assert loss(found, x, y) <= best.fun + 1e-6 * (1 + abs(best.fun))


def test_probabilities_keep_their_word() -> None:
    """Over-confident evidence, in a tenth of abnormal patches: afterwards the mean probability is the share of ones."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 2, 20_000)
    y = (rng.random(20_000) < p).astype(int)
    slope, offset = platt(8 * np.log(p / (1 - p)) + 5, y)
    assert slope == pytest.approx(1 / 8, rel=0.05)
    found = 1 / (1 + np.exp(-(slope * (8 * np.log(p / (1 - p)) + 5) + offset)))
    for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        inside = (found >= low) & (found < high)
        assert y[inside].mean() == pytest.approx(found[inside].mean(), abs=0.03)


def test_separable_evidence_keeps_the_slope_finite() -> None:
    slope, offset = platt([-1.0, -0.9, 0.9, 1.0], [0, 0, 1, 1])
    assert 0 < slope < 10
    assert abs(offset) < 1e-6


@pytest.mark.parametrize(
    ("evidence", "labels", "said"),
    [
        ([1.0, 2.0], [1, 1], "0 normal and 2 abnormal"),
        ([np.nan, 2.0], [0, 1], "1 values not finite"),
        ([1.0], [0, 1], r"evidence \[1\], labels \[2\]"),
        ([1.0, 2.0], [0, 2], "labels 0 or 1"),
    ],
)
def test_bad_evidence(evidence: list[float], labels: list[int], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        platt(evidence, labels)
