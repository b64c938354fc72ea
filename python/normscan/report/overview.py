"""One picture of a test set: a few normals and a few abnormals, each with its map and overlay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from normscan.data.read import write_image
from normscan.report.page import Row
from normscan.report.pictures import heat, outline, overlay

EACH = 4
"""Columns of normals, and of abnormals."""
SIDE = 128
"""Pixels of a tile."""
GAP = 6


def chosen(rows: Sequence[Row]) -> list[int]:
    """Indices spread evenly over the ranks of each kind: the easy and the hard, no favourites."""
    found: list[int] = []
    for label in (0, 1):
        ranked = sorted((i for i, row in enumerate(rows) if row.label == label), key=lambda i: rows[i].score)
        places = np.linspace(0, len(ranked) - 1, min(EACH, len(ranked)) + 2)[1:-1]
        found += [ranked[round(place)] for place in places]
    return found


def write_overview(path: Path, rows: Sequence[Row], map_scale: tuple[float, float]) -> None:
    """Write a PNG, a column for each row that has image and map: picture with true mask, map, overlay."""
    low, high = map_scale
    columns = [
        [
            outline(_tile(row.image), _tile(row.mask).astype(bool))
            if row.mask is not None and row.mask.any()
            else _tile(row.image),
            _tile(heat(row.map, low, high)),
            _tile(overlay(row.image, row.map, low, high)),
        ]
        for row in rows
        if row.image is not None and row.map is not None
    ]
    if not columns:
        return
    height = len(columns[0]) * (SIDE + GAP) - GAP
    sheet = np.full((height, len(columns) * (SIDE + GAP) - GAP, 3), 255, np.uint8)
    for x, column in enumerate(columns):
        for y, tile in enumerate(column):
            top, left = y * (SIDE + GAP), x * (SIDE + GAP)
            sheet[top : top + SIDE, left : left + SIDE] = tile
    write_image(path, sheet)


def _tile(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Any picture or mask as a square tile, letter-boxed in white."""
    import cv2

    source = np.asarray(pixels, np.uint8)
    scale = SIDE / max(source.shape[:2])
    size = (max(1, round(source.shape[1] * scale)), max(1, round(source.shape[0] * scale)))
    flat = source.ndim == 2
    small = cv2.resize(source, size, interpolation=cv2.INTER_NEAREST if flat else cv2.INTER_AREA)
    tile = np.full((SIDE, SIDE, *source.shape[2:]), 0 if flat else 255, np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return tile
