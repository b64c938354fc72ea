"""Pictures between files, tensors and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from normscan.data.read import read_image
from normscan.generate.card import Pixels

CELL = 128
_CAPTION = 20
_GAP = 4


def read_picture(path: Path) -> Tensor:
    """A file -> [1,C,H,W] float32 in -1..1, C 1 (grey) or 3; transparency is composited over black."""
    pixels = read_image(path)
    scale = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    planes = (pixels.astype(np.float32) / np.float32(scale)).reshape(*pixels.shape[:2], -1)
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None] * 2 - 1


def to_pixels(x: Tensor) -> Pixels:
    """[1,C,H,W] in -1..1 -> [H,W] or [H,W,3] uint8; what lies outside is clipped."""
    levels = ((x.detach()[0].clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    planes: Pixels = levels.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)


def contact_sheet(rows: Mapping[str, Sequence[Pixels]]) -> Pixels:
    """Rows of pictures, each under its caption, every picture fitted into a square cell  ->  [H,W,3] uint8."""
    import cv2

    columns = max(len(pictures) for pictures in rows.values())
    bands: list[NDArray[Any]] = []
    for caption, pictures in rows.items():
        band = np.full((_CAPTION + CELL + _GAP, columns * (CELL + _GAP) + _GAP, 3), 255, np.uint8)
        cv2.putText(band, caption, (_GAP, _CAPTION - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        for place, picture in enumerate(pictures):
            cell = _fitted(picture)
            left = _GAP + place * (CELL + _GAP) + (CELL - cell.shape[1]) // 2
            top = _CAPTION + (CELL - cell.shape[0]) // 2
            band[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        bands.append(band)
    return np.concatenate(bands)


def _fitted(picture: Pixels) -> Pixels:
    """Fitted into a cell: enlarged by repeating pixels, so that a coarse scale shows its pixels; shrunk by areas."""
    import cv2

    colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    factor = CELL / max(colour.shape[:2])
    size = (max(1, round(colour.shape[1] * factor)), max(1, round(colour.shape[0] * factor)))
    how = cv2.INTER_NEAREST if factor > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(colour, size, interpolation=how), np.uint8)
