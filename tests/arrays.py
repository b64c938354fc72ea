"""Arrays for tests: seeded values, every memory layout that the native border takes, and smooth pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

FLOATS = ("float32", "float64")
# 1 is the smallest, 19 is odd and below two vectors of any SIMD level, 111 is odd and has whole vectors and a rest.
SIDES = (1, 19, 111)


def normal(*shape: int, dtype: DTypeLike = "float32", seed: int = 0) -> Array:
    """Standard normal values, the same for the same seed and shape."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def uniform(*shape: int, dtype: DTypeLike = "float32", seed: int = 0) -> Array:
    """Values in 0..1, the same for the same seed and shape."""
    return np.random.default_rng([seed, *shape]).random(shape).astype(dtype)


def unwritten(*shape: int, dtype: DTypeLike = "float32") -> Array:
    """An output to be filled: NaN everywhere, so that a pixel that nobody wrote is seen."""
    return np.full(shape, np.nan, dtype)


def contiguous(x: Array) -> Array:
    return np.ascontiguousarray(x)


def strided(x: Array) -> Array:
    """The same values with every stride wider than needed but the innermost, which stays 1."""
    between = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    wide = np.full([2 * n for n in x.shape[:-1]] + [x.shape[-1] + 3], between, x.dtype)
    view = wide[(*tuple(slice(1, None, 2) for _ in x.shape[:-1]), slice(1, 1 + x.shape[-1]))]
    view[...] = x
    return view


def reversed_batch(x: Array) -> Array:
    """The same values with a negative outermost stride (for two axes or more)."""
    return np.ascontiguousarray(x[::-1])[::-1] if x.ndim > 1 else x


def channels_last(x: Array) -> Array:
    """[N,C,H,W] whose channels lie side by side; other ranks as they are."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if x.ndim == 4 else x


def channels_last_strided(x: Array) -> Array:
    """Channels last, as a window of a larger batch, picture and channel count."""
    return strided(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if x.ndim == 4 else strided(x)


def misaligned(x: Array) -> Array:
    """The same values one element past a multiple of 64 bytes: aligned for the element, for no vector register."""
    memory = np.zeros(x.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + x.itemsize
    view = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    function.__name__: function
    for function in (contiguous, strided, reversed_batch, channels_last, channels_last_strided, misaligned)
}


UNIT = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
"""What white is, by dtype."""
PICTURES = [(64, 64), (64, 64, 3), (61, 111, 3), (19, 8)]


def picture(shape: tuple[int, ...], dtype: type, seed: int = 0) -> Array:
    """Smooth random values over the whole range, [H,W] or [H,W,C]."""
    coarse = np.random.default_rng(seed).random((9, 9, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_LINEAR) * UNIT[dtype]
    return (smooth[:, :, : shape[2]] if len(shape) == 3 else smooth[:, :, 0]).astype(dtype)
