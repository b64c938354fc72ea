"""Multi-scale SSIM (Wang et al. 2003, eq. 7): the slow float64 truth, composed of the reference distances.

    MS-SSIM = SSIM_M^{w_M} product_{j<M} CS_j^{w_j}

for every image and channel, then the mean over both. SSIM_j and CS_j are means over the positions of scale j, at least
1e-6; scale j + 1 is the mean of 2 x 2 pixels, of what there is of them at an odd edge. M is the number of scales, at
most five, whose shorter side is at least 11; the weights of those that remain sum to 1 again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.distance import distance

Array = NDArray[np.float64]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = 1e-6


def halved(x: Array) -> Array:
    """[N,C,H,W] -> [N,C,ceil(H/2),ceil(W/2)]: the mean of each 2 x 2."""
    rows, columns = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    blocks = [[x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(columns)] for i in range(rows)]
    return np.moveaxis(np.array(blocks), (0, 1), (2, 3))


def ms_ssim(a: ArrayLike, b: ArrayLike) -> float:
    """a, b [N,C,H,W] in 0..1 -> the mean over images and channels."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scales = [(a, b)]
    while len(scales) < len(WEIGHTS) and min(halved(scales[-1][0]).shape[2:]) >= 11:
        scales.append((halved(scales[-1][0]), halved(scales[-1][1])))
    weights = np.array(WEIGHTS[: len(scales)]) / sum(WEIGHTS[: len(scales)])
    value = np.ones(a.shape[0] * a.shape[1])
    for j, (x, y) in enumerate(scales):
        planes = [z.reshape(-1, 1, *z.shape[2:]) for z in (x, y)]
        part = 1 - distance(*planes, metric="ssim" if j == len(scales) - 1 else "cs").mean((1, 2))
        value *= np.maximum(part, SMALLEST) ** weights[j]
    return float(value.mean())
