"""Two pictures [N,3,H,W] in 0..1 -> how red they are against each other [N,H,W]: the slow float64 truth.

    residual   (r(b) - r(a))^2, r = R - (G + B) / 2, what is below the cut is 0
    red_ratio  (n(b) + 1) / (n(a) + 1), n the red pixels of a window cut off at the edges, or of the whole picture

Red is a hue (of HSV, in degrees; Smith 1978) in [from, to], round the circle where from > to, of a saturation of at
least `least_saturation`. A grey pixel has no hue and is never red. The ends belong to the range, and they are widened
by slacks so that c / 255, rounded to float32, falls on the same side as the whole number c does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

METRICS = ("residual", "red_ratio")
HUE_SLACK, SATURATION_SLACK, CUT_SLACK = 1e-3, 1e-6, 1e-6


def redness(picture: ArrayLike, cut: float) -> Array:
    """[N,3,H,W] -> r [N,H,W]."""
    red, green, blue = np.moveaxis(np.asarray(picture, np.float64), 1, 0)
    r = red - (green + blue) / 2
    return np.where(r < cut - CUT_SLACK, 0.0 * r, r)


def hue_and_saturation(picture: ArrayLike) -> tuple[Array, Array]:
    """[N,3,H,W] -> hue [N,H,W] in 0..360, NaN where a pixel is grey, and saturation in 0..1, 0 where it is black."""
    rgb = np.asarray(picture, np.float64)
    red, green, blue = np.moveaxis(rgb, 1, 0)
    most, spread = rgb.max(1), np.ptp(rgb, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sectors = [(green - blue) / spread, 2 + (blue - red) / spread, 4 + (red - green) / spread]
        hue = np.choose(rgb.argmax(1), sectors) * 60 % 360
        saturation = np.where(most > 0, spread / most, 0.0)
    return np.where(spread > 0, hue, np.nan), saturation


def is_red(picture: ArrayLike, hue: tuple[float, float], least_saturation: float) -> NDArray[np.bool_]:
    """[N,3,H,W] -> [N,H,W]."""
    first, last = hue[0] - HUE_SLACK, hue[1] + HUE_SLACK
    found, saturation = hue_and_saturation(picture)
    turns = np.stack([found - 360, found, found + 360])  # the end of one turn is the beginning of the next
    last += 360 if hue[0] > hue[1] else 0
    return ((first <= turns) & (turns <= last)).any(0) & (saturation >= least_saturation - SATURATION_SLACK)


def in_windows(values: NDArray[np.bool_], window: int | None) -> Array:
    """[N,H,W] -> how many there are in the window around each position, by looking at each of them."""
    if window is None:
        return np.broadcast_to(values.sum((1, 2), dtype=np.float64)[:, None, None], values.shape)
    height, width = values.shape[1:]
    counts = np.zeros(values.shape)
    for y, x in np.ndindex(height, width):
        rows, columns = (slice(max(at - window // 2, 0), at + window // 2 + 1) for at in (y, x))
        counts[:, y, x] = values[:, rows, columns].sum((1, 2))
    return counts


def stain(
    a: ArrayLike,
    b: ArrayLike,
    *,
    metric: str,
    cut: float = 0.0,
    hue: tuple[float, float] = (350.0, 16.0),
    least_saturation: float = 0.0,
    window: int | None = None,
) -> Array:
    """What is judged, a, and its reference b [N,3,H,W] -> [N,H,W]. A pixel that is not finite is nobody's colour."""
    if metric == "residual":
        return (redness(b, cut) - redness(a, cut)) ** 2
    red_a, red_b = (in_windows(is_red(x, hue, least_saturation), window) for x in (a, b))
    broken = ~(np.isfinite(a) & np.isfinite(b)).all(1)
    return np.where(in_windows(broken, window) > 0, np.nan, (red_b + 1) / (red_a + 1))
