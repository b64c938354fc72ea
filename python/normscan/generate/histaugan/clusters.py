"""Pictures of like colour, found by k-means of their colour statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError, InputError

Features = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

_RESTARTS, _ROUNDS = 8, 100


def colour_statistics(pixels: npt.NDArray[Any]) -> Features:
    """[H,W] or [H,W,3] -> [6]: mean lightness, a, b (CIE Lab), and their standard deviations."""
    import cv2

    whole = pixels.dtype.kind == "u"
    values = pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if whole else 1)
    rgb = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    lab = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2LAB), np.float64).reshape(-1, 3)
    return np.concatenate([lab.mean(0), lab.std(0)])


def cluster(features: Features, count: int, *, seed: int) -> Labels:
    """k-means of features [N,D], each brought to unit spread -> labels [N] in 0..count-1; the best of some starts."""
    if features.ndim != 2 or len(features) < count:
        raise ArgumentError(f"cluster: features have shape {list(features.shape)}, expected [N,D], N >= {count}")
    spread = features.std(0)
    points = (features - features.mean(0)) / np.where(spread > 0, spread, 1.0)
    if len(np.unique(points, axis=0)) < count:
        raise InputError(f"the images have fewer than {count} different colours; choose fewer clusters")
    rng = np.random.default_rng(seed)
    found = [_lloyd(points, _far_apart(points, count, rng)) for _ in range(_RESTARTS)]
    return min(found, key=lambda item: item[1])[0]


def _far_apart(points: Features, count: int, rng: np.random.Generator) -> Features:
    """First centres: each drawn by its squared distance to those before it (k-means++)."""
    centres = [points[rng.integers(len(points))]]
    while len(centres) < count:
        nearest = _squares(points, np.stack(centres)).min(1)
        centres.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
    return np.stack(centres)


def _lloyd(points: Features, centres: Features) -> tuple[Labels, float]:
    """(labels, summed squared distance) once labels no longer change."""
    labels = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        squares = _squares(points, centres)
        if np.array_equal(new := squares.argmin(1), labels):
            break
        labels = new
        # A centre that lost all its points stays where it is.
        centres = np.stack([points[labels == k].mean(0) if (labels == k).any() else c for k, c in enumerate(centres)])
    return labels, float(squares.min(1).sum())


def _squares(points: Features, centres: Features) -> Features:
    return np.asarray(np.square(points[:, None] - centres).sum(2))
