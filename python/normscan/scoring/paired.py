"""Two detectors on the same images: is the difference of their AUROCs more than chance?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError
from normscan.scoring.metrics import Groups, Labels, group_indices, independent, placements


@dataclass(frozen=True)
class Paired:
    """Second minus first."""

    difference: float
    interval: tuple[float, float]
    """95 %."""
    p: float | None
    """Two-sided; None where the difference has no spread, so that these images cannot say, and for a bootstrap."""
    method: str
    """"delong", "clustered_delong" where groups (patients) have several images, or "paired_bootstrap"."""


def compare_aurocs(labels: Labels, first: npt.ArrayLike, second: npt.ArrayLike, groups: Groups | None = None) -> Paired:
    """Test of two correlated AUROCs (DeLong 1988; with groups of several images, Obuchowski 1997).

    labels, first, second [n]: one image each, in the same order. Both detectors see the same images, so that what makes
    an image hard for both drops out of the difference.
    """
    abnormal = np.asarray(labels).astype(np.bool_)
    m, n = int(abnormal.sum()), int((~abnormal).sum())
    if min(m, n) < 2:
        raise ArgumentError(f"compare_aurocs: found {n} normal and {m} abnormal images, expected at least 2 of each")
    (below, above), (other_below, other_above) = (placements(labels, scores) for scores in (second, first))
    d_below, d_above = below - other_below, above - other_above
    difference = float(d_below.mean())
    if groups is None or independent(groups, len(abnormal)):
        method, variance = "delong", d_below.var(ddof=1) / m + d_above.var(ddof=1) / n
    else:
        share = np.empty(len(abnormal))
        share[abnormal], share[~abnormal] = (d_below - difference) / m, (d_above - difference) / n
        sums = np.bincount(group_indices(groups, len(abnormal)), share)
        if len(sums) < 2:
            raise ArgumentError("compare_aurocs: all images are of one group, expected at least 2")
        method, variance = "clustered_delong", np.square(sums).sum() * len(sums) / (len(sums) - 1)
    error = float(np.sqrt(variance))
    normal = NormalDist()
    reach = normal.inv_cdf(0.975) * error
    p = 2 * normal.cdf(-abs(difference) / error) if error > 0 else (None if difference else 1.0)
    return Paired(difference, (difference - reach, difference + reach), p, method)


def bootstrap_difference(
    metric: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], float],
    labels: Labels,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: Groups | None = None,
    *,
    seed: int = 0,
    repeats: int = 2000,
) -> Paired:
    """Any metric of (labels, scores), second minus first, with a 95 % percentile interval of the paired bootstrap.

    Each draw takes whole groups (or images) with replacement, the same for both detectors; one that misses a class is
    drawn again. There is no p.
    """
    abnormal = np.asarray(labels).astype(np.bool_)
    one, other = (np.asarray(scores, np.float64) for scores in (first, second))
    n = len(abnormal)
    members = np.arange(n) if groups is None else group_indices(groups, n)
    n_groups = int(members.max()) + 1
    for name, of_class in (("normal", ~abnormal), ("abnormal", abnormal)):
        if (found := len(np.unique(members[of_class]))) < 2:
            raise ArgumentError(f"bootstrap_difference: {name} images come from {found} group, expected at least 2")
    order = np.argsort(members, kind="stable")
    starts = np.searchsorted(members[order], np.arange(n_groups + 1))
    random = np.random.default_rng(seed)
    found_differences: list[float] = []
    while len(found_differences) < repeats:
        drawn = random.integers(n_groups, size=n_groups)
        index = order[np.concatenate([np.arange(starts[g], starts[g + 1]) for g in drawn])]
        if abnormal[index].all() or not abnormal[index].any():
            continue
        found_differences.append(metric(abnormal[index], other[index]) - metric(abnormal[index], one[index]))
    low, high = np.quantile(found_differences, [0.025, 0.975])
    return Paired(metric(abnormal, other) - metric(abnormal, one), (float(low), float(high)), None, "paired_bootstrap")
