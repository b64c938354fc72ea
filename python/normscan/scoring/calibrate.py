"""The threshold: an order statistic of the scores of healthy images, and what it promises.

n normal calibration scores and a target specificity 1 - a give the threshold T = the ceil((n + 1)(1 - a))-th smallest
score; an image is anomalous iff its score > T. For exchangeable images a new normal one then stays below T with
probability k / (n + 1) >= 1 - a, whatever the distribution of scores is (Vovk, Gammerman, Shafer 2005, section 2.2).
`np.quantile` interpolates between two scores and holds less than it says (n = 60, target 95 %: 93.5 %, not 95.1 %).

Given the calibration images, the true specificity is Beta(k, n + 1 - k) (Wilks 1941), and the number of m normal test
images at or below T is beta-binomial (m; k, n + 1 - k). Ties can only raise the specificity. All of it counts
independent images: where patients have several, the unit is the patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError

# A target is read as the nearest fraction with at most this denominator, so that 0.95 is 19/20 and
# (n + 1) * 0.95 is 19 at n = 19, not the 19.000000000000004 that would ask for a twentieth score.
_DENOMINATOR = 100_000


@dataclass(frozen=True)
class Calibration:
    """A threshold with its evidence; the fields are those of the scoring spec's `calibration`."""

    rule: str  # always "order_statistic"
    threshold: float  # in units of the score; anomalous iff score > threshold
    n: int  # normal calibration scores
    target_specificity: float
    interval: tuple[float, float]  # 95 % interval of the true specificity at this threshold


def calibrate(scores: npt.ArrayLike, target_specificity: float = 0.95) -> Calibration | None:
    """Threshold from the scores [n] of normal images, or None when n < needed(target_specificity).

    Raises ArgumentError for scores that are not finite or not one-dimensional, and for a target outside (0, 1).
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ArgumentError(f"calibrate: scores have shape {list(values.shape)}, expected one score per image, [n]")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ArgumentError(
            f"calibrate: {bad} of {values.size} scores are not finite, expected all to be; "
            "find the images that gave them and repair them or leave them out"
        )
    n = int(values.size)
    if n < needed(target_specificity):
        return None
    rank = _rank(n, target_specificity)
    threshold = float(np.partition(values, rank - 1)[rank - 1])
    interval = (_beta_quantile(0.025, rank, n + 1 - rank), _beta_quantile(0.975, rank, n + 1 - rank))
    return Calibration("order_statistic", threshold, n, float(target_specificity), interval)


def needed(target_specificity: float = 0.95) -> int:
    """Fewest normal calibration scores that allow a threshold: 1/a - 1 rounded up, 19 for 95 %, 99 for 99 %."""
    return math.ceil(1 / (1 - _target(target_specificity))) - 1


def prediction_interval(
    n_calibration: int, n_test: int, target_specificity: float = 0.95, confidence: float = 0.95
) -> tuple[float, float]:
    """Where the specificity observed on n_test normal images falls with this confidence, if the promise holds.

    Equal tails of the beta-binomial distribution (n_test; k, n_calibration + 1 - k) of the count, divided by n_test.
    Discrete, so it covers at least `confidence`. Raises ArgumentError where no threshold or no test image exists.
    """
    if n_calibration < needed(target_specificity):
        raise ArgumentError(
            f"prediction_interval: {n_calibration} calibration scores give no threshold at specificity "
            f"{target_specificity:g}; {needed(target_specificity)} are needed"
        )
    if n_test < 1:
        raise ArgumentError(f"prediction_interval: n_test is {n_test}, expected at least one normal test image")
    tail = _tail(confidence)
    a = _rank(n_calibration, target_specificity)
    b = n_calibration + 1 - a
    # P(x + 1) / P(x) = (m - x)(a + x) / ((x + 1)(b + m - x - 1)): summed as logarithms, then normalised.
    x = np.arange(n_test, dtype=np.float64)
    steps = np.log(n_test - x) + np.log(a + x) - np.log(x + 1) - np.log(b + n_test - x - 1)
    log_mass = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(log_mass - log_mass.max())
    cumulative = np.cumsum(mass / mass.sum())
    low, high = np.searchsorted(cumulative, [tail, 1 - tail])
    return float(low / n_test), float(min(high, n_test) / n_test)


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion of which k of n were seen (Clopper and Pearson 1934)."""
    if not 0 <= k <= n or n < 1:
        raise ArgumentError(f"clopper_pearson: {k} of {n} is no proportion; expected 0 <= k <= n and n >= 1")
    tail = _tail(confidence)
    low = 0.0 if k == 0 else _beta_quantile(tail, k, n - k + 1)
    high = 1.0 if k == n else _beta_quantile(1 - tail, k + 1, n - k)
    return low, high


def _target(target_specificity: float) -> Fraction:
    if math.isfinite(target_specificity):
        target = Fraction(float(target_specificity)).limit_denominator(_DENOMINATOR)
        if 0 < target < 1:
            return target
    raise ArgumentError(
        f"target specificity is {target_specificity}, expected a share between 0 and 1 (at most "
        f"{1 - 1 / _DENOMINATOR:.5f}), for example 0.95"
    )


def _rank(n: int, target_specificity: float) -> int:
    return math.ceil((n + 1) * _target(target_specificity))


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence is {confidence}, expected a share between 0 and 1, for example 0.95")
    return (1 - confidence) / 2


def _beta_quantile(p: float, a: float, b: float) -> float:
    """x with I_x(a, b) = p, by bisection down to neighbouring doubles (or 1e-300)."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high) or high < 1e-300:
            return middle
        if _incomplete_beta(middle, a, b) < p:
            low = middle
        else:
            high = middle


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b): continued fraction DLMF 8.17.22, quick for x < (a+1)/(a+b+2)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    return front / _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22 by the modified Lentz method; about sqrt(max(a, b)) steps."""
    value = numerator = 1.0
    denominator = 0.0
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / ((1 + d * denominator) or 1e-300)
        numerator = (1 + d / numerator) or 1e-300
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            return value
    raise ArithmeticError(f"incomplete beta function did not converge at x = {x}, a = {a}, b = {b}")
