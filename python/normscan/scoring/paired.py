"""Two detectors on the same images: is the difference of their AUROCs more than chance?"""

from __future__ import annotations

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
    """Two-sided; None where the difference has no spread, and these images cannot say."""
    method: str
    """"delong", or "clustered_delong" where groups (patients) have several images."""


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
