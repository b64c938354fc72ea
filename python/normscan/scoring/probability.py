"""From evidence to a probability that keeps its word: of patches called 0.8, eight in ten are abnormal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError

_STEPS = 100
_RIDGE = 1e-9


def platt(evidence: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float]:
    """(slope, offset) of probability = sigmoid(slope * evidence + offset), by maximum likelihood (Platt 1999).

    evidence [n], labels [n] 0 or 1. Targets are (N1 + 1) / (N1 + 2) and 1 / (N0 + 2), Platt's, so that separable
    evidence does not make the slope infinite. Newton's method with step halving (Lin, Lin and Weng 2007).

    Raises ArgumentError for evidence that is not finite, or where one class is missing.
    """
    x, y = np.asarray(evidence, np.float64), np.asarray(labels)
    if x.ndim != 1 or x.shape != y.shape or not np.isin(y, (0, 1)).all():
        raise ArgumentError(
            f"platt: evidence {list(x.shape)}, labels {list(y.shape)}; expected [n] each, labels 0 or 1"
        )
    ones = int((y == 1).sum())
    zeros = len(y) - ones
    if not ones or not zeros or not np.isfinite(x).all():
        raise ArgumentError(
            f"platt: found {zeros} normal and {ones} abnormal, {int((~np.isfinite(x)).sum())} values not finite; "
            "expected both kinds, and finite evidence"
        )
    scale = max(float(x.std()), 1e-12)  # Newton on evidence of unit spread
    target = np.where(y == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    design = np.stack([x / scale, np.ones_like(x)], axis=1)
    found = np.array([0.0, np.log((ones + 1) / (zeros + 1))])
    loss = _loss(design @ found, target)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(design @ found)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + _RIDGE * np.eye(2)
        step, share = np.linalg.solve(curvature, gradient), 1.0
        while (new := _loss(design @ (found - share * step), target)) > loss and share > 1e-10:
            share /= 2
        found, gain, loss = found - share * step, loss - new, new
        if gain < 1e-12 * (1 + abs(loss)):
            break
    return float(found[0] / scale), float(found[1])


def _loss(logit: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> float:
    """Cross-entropy of soft targets, without overflow."""
    return float((np.logaddexp(0, logit) - target * logit).sum())
