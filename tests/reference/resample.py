"""Bilinear resampling of maps: the slow float64 truth.

torch's `F.interpolate(mode="bilinear", align_corners=False, antialias=False)`: the output pixel i looks at the position
(i + 0.5) in/out - 0.5, clamped to the first and the last pixel's centre, and mixes the two neighbours linearly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def linear_matrix(side: int, new_side: int) -> Array:
    """[new_side, side]: the weights along one axis."""
    position = np.clip((np.arange(new_side) + 0.5) * side / new_side - 0.5, 0, side - 1)
    lower = np.floor(position).astype(int)
    weights = np.zeros((new_side, side))
    for pixel, (first, part) in enumerate(zip(lower, position - lower, strict=True)):
        weights[pixel, first] += 1.0 - part
        weights[pixel, min(first + 1, side - 1)] += part
    return weights


def resample(map_: ArrayLike, size: tuple[int, int]) -> Array:
    """[N,h,w] -> [N,H,W]."""
    map_ = np.asarray(map_, np.float64)
    return linear_matrix(map_.shape[1], size[0]) @ map_ @ linear_matrix(map_.shape[2], size[1]).T
