"""`prepare`: a decoded picture to the network's input, against what people use for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from contenders import Array, compiled, eager, equals, outputs, size, within
from PIL import Image
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F

from normscan import _native
from reference import prepare as reference

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ONE_LEVEL = 1 / 255 / min(STD)
"""One of 255 grey levels after normalisation: two roundings of half a level, by who resizes in 8 bits."""
OTHER_FILTER = 0.1 / min(STD)
"""OpenCV's filter does not average the pixels that it skips: on a smooth picture it must at least show the same one."""


class Entry(NamedTuple):
    """One case: a square RGB picture to a square input, stretched."""

    name: str
    picture: int
    side: int
    goals: Mapping[str, float]


ENTRIES = (Entry("1024x1024 uint8 RGB to 256", 1024, 256, {"eager": 2}),)


def cases() -> Iterator[Case]:
    """One at a time."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Equal to the float64 reference, which the tests hold against Pillow; Pillow itself is a peer here."""
    image, side = picture(entry.picture), (entry.side, entry.side)
    expected = truth(image, side)
    check = equals("prepare", expected)
    (out,) = outputs((3, *side))

    def native() -> Array:
        _native.prepare(image, out, resize="stretch", mean=MEAN, std=STD)
        return out

    return Case(
        op="prepare",
        name=entry.name,
        ours=(Contender("native", native, check),),
        peers=(
            eager(in_float(side), [image], check),
            compiled(in_float(side), [image], check),
            Contender("eager_uint8", partial(in_8_bits(side), torch.from_numpy(image)), within(ONE_LEVEL, expected)),
            Contender("opencv_blob", lambda: opencv(image, side), within(OTHER_FILTER, expected)),
            Contender("pillow", lambda: pillow(image, side), within(ONE_LEVEL, expected)),
        ),
        moved=size(image, out),
        # The triangle has 2 * scale taps: along rows for every row of the picture, along columns for every output.
        flops=2 * 3 * 2 * (entry.picture // entry.side) * (entry.picture * entry.side + entry.side**2),
        goals=entry.goals,
    )


def truth(image: Array, side: tuple[int, int]) -> Array:
    """The reference's own matrices, one axis after the other: its einsum would take minutes at this size."""
    rows, columns = reference.axes(image.shape[:2], side, "stretch")
    by_row, by_column = (
        reference.triangle_matrix(old, axis) for old, axis in zip(image.shape[:2], (rows, columns), strict=True)
    )
    planes = by_row @ (image.transpose(2, 0, 1) / 255) @ by_column.T
    return (planes - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))


def picture(side: int) -> Array:
    """uint8 [side,side,3], smooth with a little noise."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (3 * y + c)) * np.cos(2 * np.pi * (2 * x - c)) for c in (0.0, 0.2, 0.4)]
    noise = np.random.default_rng(0).normal(0, 4, (side, side, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def in_float(side: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """To float, resize, normalise: no rounding on the way."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))

    def function(image: Tensor) -> Tensor:
        x = image.permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(x, side, mode="bilinear", antialias=True, align_corners=False)
        return ((x - mean) / std)[0]

    return function


def in_8_bits(side: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """torch's own kernel for uint8, rounded to grey levels, then normalised."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))

    def function(image: Tensor) -> Tensor:
        x = F.interpolate(image.permute(2, 0, 1)[None], side, mode="bilinear", antialias=True, align_corners=False)
        return ((x.float() / 255 - mean) / std)[0]

    return function


def opencv(image: Array, side: tuple[int, int]) -> Array:
    """Resize without antialiasing, subtract the mean, scale, to planes; then the division by the deviation."""
    blob = cv2.dnn.blobFromImage(image, 1 / 255, side, [255 * m for m in MEAN])
    return (blob / np.asarray(STD, np.float32)[:, None, None])[0]


def pillow(image: Array, side: tuple[int, int]) -> Array:
    """The antialiased resize on one thread, then numpy."""
    resized = np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BILINEAR)).astype(np.float32) / 255
    return np.ascontiguousarray(((resized - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1))
