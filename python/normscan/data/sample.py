"""One image: where it lies and what is known of it (Record), and what was decoded from it (Sample)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = ("train", "validation", "calibration", "test", "unlabelled")


@dataclass(frozen=True, slots=True)
class Record:
    """One image on disk, not yet opened.

    path    the image file
    label   0 normal, 1 abnormal, None unknown
    split   one of SPLITS, or None for an image that belongs to no data set
    group   whatever must not straddle two splits: patient, lesion, slide; None means that nothing is known, and the
            image is then a group of its own
    mask    the file with the abnormal area (any non-zero pixel), where there is one
    origin  "ok" for a real image; generated images say what they were generated from
    weight  of the image in a weighted loss
    """

    path: Path
    label: int | None = None
    split: str | None = None
    group: str | None = None
    mask: Path | None = None
    origin: str = "ok"
    weight: float = 1.0


@dataclass(slots=True)
class Sample:
    """One decoded image.

    pixels  [H,W] or [H,W,3] in RGB order; uint8 or uint16 over their whole range, or float32 in 0..1
    mask    bool [H,W] of the same height and width, or None where there is none
    """

    record: Record
    pixels: NDArray[np.generic]
    mask: NDArray[np.bool_] | None = None
