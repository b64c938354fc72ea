"""`smooth`: the Gaussian blur of maps, against OpenCV and SciPy. torch cannot repeat the edge pixel as they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from contenders import Array, equals, normal, outputs, size
from scipy import ndimage
from timing import Case, Contender

from normscan import _native
from reference import smooth as reference


class Entry(NamedTuple):
    """One case: square maps, sigma in pixels."""

    images: int
    side: int
    sigma: float


ENTRIES = (Entry(8, 256, 4.0), Entry(8, 256, 1.0), Entry(1, 1024, 8.0))


def cases() -> Iterator[Case]:
    """One at a time."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Equal to the float64 reference, the peers too."""
    (maps,) = normal(0, (entry.images, entry.side, entry.side))
    (out,) = outputs(maps.shape)
    check = equals("smooth", reference.smooth(maps, sigma=entry.sigma))
    taps = 2 * int(4 * entry.sigma + 0.5) + 1

    def native() -> Array:
        _native.smooth(maps, out, sigma=entry.sigma)
        return out

    def opencv() -> Array:
        return np.stack([cv2.GaussianBlur(x, (taps, taps), entry.sigma, borderType=cv2.BORDER_REFLECT) for x in maps])

    def scipy() -> Array:
        return ndimage.gaussian_filter(maps, entry.sigma, axes=(1, 2))

    return Case(
        op="smooth",
        name=f"{entry.images}x{entry.side}x{entry.side} sigma {entry.sigma:g}",
        ours=(Contender("native", native, check),),
        peers=(Contender("opencv", opencv, check), Contender("scipy", scipy, check)),
        moved=size(maps, out),
        flops=2 * 2 * taps * maps.size,
    )
