"""Golden inputs: 8 pictures made by a seeded procedure, smooth as photographs are, never taken from anybody's data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from normscan.scoring.scorer import prepare
from normscan.scoring.spec import Input

COUNT = 8
SEED = 20100043


def golden_inputs(size: Input) -> np.ndarray:
    """x [8, channels, height, width] float32, prepared as the spec says."""
    return np.stack([prepare(pixels, size) for pixels in golden_pictures(size, COUNT)])


def golden_pictures(size: Input, count: int) -> Iterator[np.ndarray]:
    """[height, width, 3] float32 in 0..1 each, always the same."""
    rng = np.random.default_rng(SEED)
    return (_picture(rng, size) for _ in range(count))


def _picture(rng: np.random.Generator, size: Input) -> np.ndarray:
    """[height, width, 3] float32 in 0..1: coarse colour fields and a little fine grain."""
    coarse = rng.normal(0.5, 0.12, (4, 4, 3))
    rows = np.linspace(0, 3, size.height)
    columns = np.linspace(0, 3, size.width)
    field = _lerp(_lerp(coarse, rows).transpose(1, 0, 2), columns).transpose(1, 0, 2)
    grain = rng.normal(0.0, 0.02, field.shape)
    return np.clip(field + grain, 0.0, 1.0).astype(np.float32)


def _lerp(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation along the first axis at fractional indices."""
    low = np.minimum(at.astype(int), len(values) - 2)
    share = (at - low)[:, None, None]
    result: np.ndarray = values[low] * (1 - share) + values[low + 1] * share
    return result
