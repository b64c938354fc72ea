"""Levels of features -> one map and its score: the slow float64 truth, composed of the other references.

map    smooth( sum_l weights_l R(distance_l) )  or  smooth( product_l R(distance_l) );  R resamples to H x W
score  pool(map)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.distance import distance
from reference.pool import pool
from reference.resample import resample
from reference.smooth import smooth

Array = NDArray[np.float64]


def distance_maps(
    levels: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    size: tuple[int, int],
    metric: str,
    weights: Sequence[float],
    fuse: str,
    sigma: float,
    pool_method: str,
    parameter: float = 0.0,
) -> tuple[Array, Array]:
    """levels (a, b) [N,C_l,H_l,W_l] -> map [N,H,W], score [N]."""
    maps = np.stack([resample(distance(a, b, metric=metric), size) for a, b in levels])
    fused = maps.prod(axis=0) if fuse == "product" else np.tensordot(np.asarray(weights), maps, axes=1)
    fused = smooth(fused, sigma=sigma)
    return fused, pool(fused, method=pool_method, parameter=parameter)
