"""`resample`: maps brought to the size of the picture, against torch and OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from contenders import Array, compiled, eager, equals, normal, outputs, size
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F

from normscan import _native
from reference import resample as reference


class Entry(NamedTuple):
    """One case: square maps to square maps."""

    images: int
    side: int
    to: int


ENTRIES = (Entry(8, 64, 256), Entry(8, 256, 256), Entry(1, 256, 2048))


def cases() -> Iterator[Case]:
    """One at a time."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Equal to the float64 reference, the peers too."""
    (maps,) = normal(0, (entry.images, entry.side, entry.side))
    (out,) = outputs((entry.images, entry.to, entry.to))
    check = equals("resample", reference.resample(maps, (entry.to, entry.to)))

    def native() -> Array:
        _native.resample(maps, out)
        return out

    def interpolate(x: Tensor) -> Tensor:
        return F.interpolate(x[:, None], (entry.to, entry.to), mode="bilinear", align_corners=False)[:, 0]

    def opencv() -> Array:
        return np.stack([cv2.resize(x, (entry.to, entry.to), interpolation=cv2.INTER_LINEAR) for x in maps])

    return Case(
        op="resample",
        name=f"{entry.images}x{entry.side}x{entry.side} to {entry.to}",
        ours=(Contender("native", native, check),),
        peers=(
            eager(interpolate, [maps], check),
            compiled(interpolate, [maps], check),
            Contender("opencv", opencv, check),
        ),
        moved=size(maps, out),
        flops=3 * 3 * out.size,  # three linear interpolations a pixel
    )
