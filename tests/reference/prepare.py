"""A picture as decoded -> the network's input, and a map back into the picture: the slow float64 truth.

The filter is Pillow's `resize(..., BILINEAR, box=...)` (src/libImaging/Resample.c, precompute_coeffs), in floats: with
scale = box / new size and support = max(scale, 1), the new pixel i looks from centre = start + (i + 0.5) scale at every
pixel x of the picture with the weight max(0, 1 - |x + 0.5 - centre| / support), weights normalised to 1. Taps may lie
outside the box, but not outside the picture.

    stretch  the whole picture to h x w
    fit      s = min(h/H, w/W); the whole picture to max(1, floor(H s + 1/2)) x max(1, floor(W s + 1/2)), placed at
             floor((h - new h) / 2), floor((w - new w) / 2), with 0 around it
    crop     s = max(h/H, w/W); the box of h/s x w/s around the picture's centre to h x w

Sizes are computed in fractions: a rounded H s must not decide which side of a half it falls on.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RESIZES = ("stretch", "fit", "crop")
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
FULL_SCALE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


@dataclass(frozen=True)
class Axis:
    """One axis: the box [start, stop) in picture pixels becomes `size` pixels from `offset` on in the input."""

    start: Fraction
    stop: Fraction
    offset: int
    size: int


def axes(picture: tuple[int, int], size: tuple[int, int], resize: str) -> tuple[Axis, Axis]:
    """Picture H x W, input h x w -> the geometry of rows and of columns."""
    ratios = [Fraction(new, old) for old, new in zip(picture, size, strict=True)]
    if resize == "stretch":
        found = [Axis(Fraction(0), Fraction(old), 0, new) for old, new in zip(picture, size, strict=True)]
    elif resize == "fit":
        inner = [max(1, int(old * min(ratios) + Fraction(1, 2))) for old in picture]
        found = [
            Axis(Fraction(0), Fraction(old), (new - part) // 2, part)
            for old, new, part in zip(picture, size, inner, strict=True)
        ]
    elif resize == "crop":
        boxes = [new / max(ratios) for new in size]
        found = [
            Axis((old - box) / 2, (old + box) / 2, 0, new) for old, new, box in zip(picture, size, boxes, strict=True)
        ]
    else:
        raise ValueError(f"resize is {resize!r}, expected one of {RESIZES}")
    return found[0], found[1]


def triangle_matrix(side: int, axis: Axis) -> Array:
    """[axis.size, side]: the weights of Pillow's antialiased bilinear filter along one axis."""
    scale = float(axis.stop - axis.start) / axis.size
    centre = float(axis.start) + (np.arange(axis.size)[:, None] + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(side)[None, :] + 0.5 - centre) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _channels(pixels: Array, wanted: int) -> Array:
    """[H,W,C] -> [H,W,wanted]: grey is repeated, colour becomes luma."""
    if pixels.shape[2] == wanted:
        return pixels
    return np.repeat(pixels, 3, axis=2) if wanted == 3 else (pixels @ LUMA)[:, :, None]


def prepare(
    image: NDArray[np.generic], size: tuple[int, int], *, resize: str, mean: ArrayLike, std: ArrayLike
) -> Array:
    """image [H,W] or [H,W,C] uint8, uint16 or float32 -> [C',h,w], C' = len(mean); (0..1 value - mean) / std."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    pixels = image.astype(np.float64) / FULL_SCALE[image.dtype]
    pixels = _channels(pixels.reshape(*image.shape[:2], -1), mean.size)
    rows, columns = axes(image.shape[:2], size, resize)
    resized = np.einsum(
        "iy,yxc,jx->cij", triangle_matrix(image.shape[0], rows), pixels, triangle_matrix(image.shape[1], columns)
    )
    out = np.zeros((mean.size, *size))
    out[:, rows.offset : rows.offset + rows.size, columns.offset : columns.offset + columns.size] = resized
    return (out - mean[:, None, None]) / std[:, None, None]


def _restore_matrix(side: int, axis: Axis, input_side: int) -> tuple[Array, NDArray[np.bool_]]:
    """([side, input_side] bilinear weights, which of the picture's pixels have their centre inside the box)."""
    centre = np.arange(side) + 0.5
    position = (centre - float(axis.start)) * axis.size / float(axis.stop - axis.start) - 0.5
    position = np.clip(position, 0, axis.size - 1)
    lower = np.minimum(np.floor(position).astype(int), axis.size - 1)
    weights = np.zeros((side, input_side))
    for pixel, (first, part) in enumerate(zip(lower, position - lower, strict=True)):
        weights[pixel, axis.offset + first] += 1.0 - part
        weights[pixel, axis.offset + min(first + 1, axis.size - 1)] += part
    return weights, (centre >= float(axis.start)) & (centre <= float(axis.stop))


def restore(map_: ArrayLike, picture: tuple[int, int], *, resize: str) -> Array:
    """map [h,w] in the input's geometry -> [H,W] in the picture's; 0 where `crop` never looked."""
    map_ = np.asarray(map_, np.float64)
    rows, columns = axes(picture, map_.shape, resize)
    by_row, seen_row = _restore_matrix(picture[0], rows, map_.shape[0])
    by_column, seen_column = _restore_matrix(picture[1], columns, map_.shape[1])
    return np.where(seen_row[:, None] & seen_column[None, :], by_row @ map_ @ by_column.T, 0.0)
