"""Gaussian blur of maps: the slow float64 truth.

scipy.ndimage.gaussian_filter(mode="reflect", truncate=4): a separable kernel exp(-k^2 / 2 sigma^2) for
|k| <= int(4 sigma + 0.5), normalised to 1, over the map continued by mirror images of itself, edge pixels repeated
(d c b a | a b c d | d c b a), as often as the kernel reaches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def blur_matrix(side: int, sigma: float) -> Array:
    """[side, side]: the weights along one axis, mirror images folded back."""
    if sigma == 0:
        return np.eye(side)
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    weights = np.zeros((side, side))
    for pixel in range(side):
        for step, weight in zip(range(-radius, radius + 1), kernel, strict=True):
            folded = (pixel + step) % (2 * side)
            weights[pixel, min(folded, 2 * side - 1 - folded)] += weight
    return weights


def smooth(map_: ArrayLike, *, sigma: float) -> Array:
    """[N,H,W] -> [N,H,W]; sigma in pixels."""
    map_ = np.asarray(map_, np.float64)
    return blur_matrix(map_.shape[1], sigma) @ map_ @ blur_matrix(map_.shape[2], sigma).T
