"""A map -> one number: the slow float64 truth.

    mean      the mean of all pixels
    max       the largest pixel
    topk      the mean of the ceil(parameter H W) largest pixels, 0 < parameter <= 1
    quantile  linear interpolation between order statistics, at parameter (H W - 1)   (numpy's default, Hyndman-Fan 7)
    area      the pixels of the largest 8-connected component of value > parameter, as a share of H W

A NaN anywhere in a map makes its result NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

METHODS = ("mean", "max", "topk", "quantile", "area")


def largest_component(mask: NDArray[np.bool_]) -> int:
    """[H,W] -> the number of pixels of the largest 8-connected component, by flood fill."""
    _height, _width = mask.shape
    waiting = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    largest = 0
    while waiting:
        edge, size = [waiting.pop()], 0
        while edge:
            y, x = edge.pop()
            size += 1
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & waiting
            waiting -= around
            edge.extend(around)
        largest = max(largest, size)
    return largest


def _pool_one(map_: Array, method: str, parameter: float) -> float:
    if np.isnan(map_).any():
        return math.nan
    if method == "mean":
        return float(map_.mean())
    if method == "max":
        return float(map_.max())
    ordered = np.sort(map_, axis=None)
    if method == "topk":
        return float(ordered[-math.ceil(parameter * map_.size) :].mean())
    if method == "quantile":
        position = parameter * (map_.size - 1)
        lower = math.floor(position)
        upper = min(lower + 1, map_.size - 1)
        return float(ordered[lower] + (position - lower) * (ordered[upper] - ordered[lower]))
    if method == "area":
        return largest_component(map_ > parameter) / map_.size
    raise ValueError(f"method is {method!r}, expected one of {METHODS}")


def pool(map_: ArrayLike, *, method: str, parameter: float = 0.0) -> Array:
    """[N,H,W] -> [N]."""
    return np.array([_pool_one(one, method, parameter) for one in np.asarray(map_, np.float64)])
