"""Whole slides made on the fly: tiled pyramidal TIFFs, as OpenSlide's generic-tiff reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

GLASS = (243, 241, 245)
TILE = 256


def write_slide(
    path: Path, pixels: np.ndarray, *, mpp: float | None = 0.5, levels: int = 3, sparse: bool = False
) -> Path:
    """Write uint8 [H,W,3], each level half the one before. `sparse`: tiles that are all zeros are left out."""
    place = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            file.write(
                _tiles(pixels, sparse),
                shape=pixels.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="deflate",
                subfiletype=int(level > 0),
                metadata=None,
                **place,
            )
            pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return path


def _tiles(pixels: np.ndarray, sparse: bool) -> Iterator[bytes]:
    """Whole tiles, compressed; one of no bytes is one that the scanner left out."""
    for top in range(0, pixels.shape[0], TILE):
        for left in range(0, pixels.shape[1], TILE):
            part = pixels[top : top + TILE, left : left + TILE]
            tile = np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0)))
            yield b"" if sparse and not tile.any() else zlib.compress(tile.tobytes(), 1)


def tissue(height: int = 2000, width: int = 2600, seed: int = 0) -> np.ndarray:
    """Two pieces of pink tissue with some texture, on glass; uint8 [H,W,3]."""
    rng = np.random.default_rng(seed)
    picture = np.array(GLASS, np.int16) + rng.integers(-2, 3, (height, width, 1), np.int16)
    shape = np.zeros((height, width), np.uint8)
    for x, y, across, down, angle in ((0.32, 0.45, 0.22, 0.33, 20), (0.76, 0.6, 0.14, 0.25, -30)):
        middle, axes = (int(x * width), int(y * height)), (int(across * width), int(down * height))
        cv2.ellipse(shape, middle, axes, angle, 0, 360, 1, -1)
    coarse = rng.integers(-30, 31, (height // 16, width // 16)).astype(np.float32)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)[..., None]
    return np.where(shape[..., None] > 0, np.array((205, 130, 170), np.int16) + texture, picture).astype(np.uint8)


def coded(height: int, width: int) -> np.ndarray:
    """Every pixel says where it is: red and green its column and row in steps of 16, blue a checkerboard of 16."""
    y, x = np.mgrid[:height, :width] // 16
    return np.stack([x % 256, y % 256, (x + y) % 2 * 200], axis=2).astype(np.uint8)
