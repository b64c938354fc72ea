"""Three detectors that learn no network: what a real method has to beat on the same images.

Each is fitted in one pass over the pixels of normal training images and gives one score an image, higher is more
abnormal. No sign is chosen by looking at labels: `mean_brightness` stays below 0.5 where abnormal images are dark. A
trained network that does not clear `colour_gaussian` has learnt the colour of its data set and nothing about lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError
from normscan.scoring.statistics import GaussianFit

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[Any]  # as decoded: [H,W] or [H,W,3] RGB; uint8, uint16, or float32 in 0..1
Scorer = Callable[[Pixels], float]

_SIDE = 64  # pixels a side for the random network
_CHANNELS = (16, 32, 64)
_SEED = 20240607  # of the random network; any would do, but it must never change


def score(name: str, train: Iterable[Pixels], test: Iterable[Pixels]) -> Array:
    """Fit the baseline `name` on normal images, score others: [n] float64. Both are streamed, one image at a time.

    Raises ArgumentError for an unknown name, for fewer than two training images, and for pixels of another type.
    """
    if name not in BASELINES:
        raise ArgumentError(f"baseline {name!r} is unknown, expected one of {', '.join(sorted(BASELINES))}")
    scorer = BASELINES[name](train)
    return np.fromiter((scorer(pixels) for pixels in test), dtype=np.float64)


def mean_brightness(train: Iterable[Pixels]) -> Scorer:
    """Score = mean luminance in 0..1. Nothing is fitted, and `train` is not read."""
    weights = np.array([0.299, 0.587, 0.114])  # Rec. 601, as in `prepare`
    return lambda pixels: float(_rgb(pixels).mean(axis=(0, 1), dtype=np.float64) @ weights)


def colour_gaussian(train: Iterable[Pixels]) -> Scorer:
    """Mahalanobis distance of an image's colour statistics (27 numbers) from those of the training images."""
    return _distance(_colours, train, "colour_gaussian")


def random_network(train: Iterable[Pixels]) -> Scorer:
    """Mahalanobis distance of the channel moments (224 numbers) of an untrained, seeded network of three layers."""
    random = np.random.default_rng(_SEED)
    sizes = zip((3, *_CHANNELS), _CHANNELS, strict=False)
    # He's scale keeps the variance of rectified layers.
    layers = [random.standard_normal((9 * c, d), dtype=np.float32) * np.float32(np.sqrt(2 / (9 * c))) for c, d in sizes]
    return _distance(lambda pixels: _activations(pixels, layers), train, "random_network")


BASELINES: dict[str, Callable[[Iterable[Pixels]], Scorer]] = {
    "mean_brightness": mean_brightness,
    "colour_gaussian": colour_gaussian,
    "random_network": random_network,
}


def _distance(features: Callable[[Pixels], Array], train: Iterable[Pixels], name: str) -> Scorer:
    """Gaussian over standardised features of the training images -> Mahalanobis distance of another image's."""
    rows = [features(pixels) for pixels in train]  # the features stay, the pixels go: some 200 numbers an image
    if len(rows) < 2:
        raise ArgumentError(f"{name}: found {len(rows)} training images, expected at least 2 normal ones")
    table = np.stack(rows)
    centre = table.mean(axis=0)
    # Features differ in unit, and shrinkage pulls all of them to one variance; the floor (below one step of 8 bits) is
    # for features that never vary, such as the colour of grey pictures.
    spread = np.maximum(table.std(axis=0), 1e-3)
    fit = GaussianFit()
    fit.update((table - centre) / spread)
    whitener, mean = fit.whitener(), fit.mean

    def distance(pixels: Pixels) -> float:
        return float(np.linalg.norm(whitener @ ((features(pixels) - centre) / spread - mean)))

    return distance


def _colours(pixels: Pixels) -> Array:
    """Means and deviations of RGB and of CIE Lab (over 100), and five quantiles of R, G and B: [27]."""
    import cv2

    rgb = _rgb(pixels)
    lab = np.asarray(cv2.cvtColor(np.clip(rgb, 0, 1), cv2.COLOR_RGB2LAB), np.float32) / 100
    quantiles: Array = np.quantile(rgb, (0.05, 0.25, 0.5, 0.75, 0.95), axis=(0, 1)).ravel().astype(np.float64)
    return np.concatenate([_moments(rgb), _moments(lab), quantiles])


def _activations(pixels: Pixels, layers: list[npt.NDArray[np.float32]]) -> Array:
    """Channel means and deviations after each layer: 3x3 convolution, rectifier, 2x2 mean pooling."""
    import cv2

    x = cv2.resize(_rgb(pixels), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) - np.float32(0.5)
    moments: list[Array] = []
    for kernel in layers:
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        side, channels = x.shape[0], x.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
        flat = windows.reshape(side * side, 9 * channels)
        x = np.maximum(flat @ kernel, 0).reshape(side // 2, 2, side // 2, 2, -1).mean(axis=(1, 3))
        moments.append(_moments(x))
    return np.concatenate(moments)


def _moments(x: npt.NDArray[np.floating]) -> Array:
    """[H,W,C] -> means and standard deviations of the channels, [2C]."""
    return np.concatenate([x.mean(axis=(0, 1), dtype=np.float64), x.std(axis=(0, 1), dtype=np.float64)])


def _rgb(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Pixels as decoded -> [H,W,3] float32 in 0..1; grey is replicated."""
    x = np.asarray(pixels)
    scales = {"uint8": 255, "uint16": 65535, "float32": 1}
    grey = x.ndim == 2
    if x.dtype.name not in scales or not (grey or (x.ndim == 3 and x.shape[2] == 3)) or x.size == 0:
        raise ArgumentError(
            f"baseline: pixels are {x.dtype} of shape {list(x.shape)}, "
            "expected uint8, uint16 or float32 of shape [H,W] or [H,W,3]"
        )
    unit = x.astype(np.float32) / np.float32(scales[x.dtype.name])
    if not np.isfinite(unit).all():
        raise ArgumentError(f"baseline: {int((~np.isfinite(unit)).sum())} of {unit.size} pixel values are not finite")
    return np.repeat(unit[..., None], 3, axis=2) if grey else unit
