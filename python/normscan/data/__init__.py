"""Images from disk: formats, folder layouts, disjoint splits, augmentation, anomalies and pictures made up.

Nothing here needs torch, and OpenCV is imported when the first picture is opened, so that a command line that only
lists files starts at once.
"""

from __future__ import annotations

from normscan.data.augment import affine, sample_rng
from normscan.data.layouts import find_images, read_layout
from normscan.data.pseudo import MAKERS, plant_anomaly
from normscan.data.read import read, read_image, read_mask, write_image
from normscan.data.sample import SPLITS, Record, Sample
from normscan.data.splits import check_disjoint, split

__all__ = [
    "MAKERS",
    "SPLITS",
    "Record",
    "Sample",
    "affine",
    "check_disjoint",
    "find_images",
    "plant_anomaly",
    "read",
    "read_image",
    "read_layout",
    "read_mask",
    "sample_rng",
    "split",
    "write_image",
]
