"""`prepare` on a GPU: the CPU's picture, and a large scan, whose bytes weigh more than the launch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from bench_prepare import MEAN, STD, picture, truth
from gpu.place import Place, equals, ours, size
from timing import Case
from torch import Tensor
from torch.nn import functional as F

PICTURES, SIDE = (1024, 4096), 256


def cases(place: Place) -> Iterator[Case]:
    """One at a time."""
    for pixels in PICTURES:
        yield case(place, 2 * SIDE if place.quick else pixels)


def case(place: Place, pixels: int) -> Case:
    """Stretched to a square input; equal to the float64 reference."""
    image = picture(pixels)
    check = equals("prepare", torch.from_numpy(truth(image, (SIDE, SIDE))).to(place.device))
    mean, std = (torch.tensor(x, device=place.device).view(3, 1, 1) for x in (MEAN, STD))
    inputs, outputs = [torch.from_numpy(image).to(place.device)], place.outputs((3, SIDE, SIDE))

    def in_float(image: Tensor) -> Tensor:
        x = image.permute(2, 0, 1)[None].float() / 255
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        return ((x - mean) / std)[0]

    return Case(
        op="prepare",
        name=f"{pixels}x{pixels} uint8 RGB to {SIDE}",
        ours=(ours("prepare", inputs, outputs, check, resize="stretch", mean=MEAN, std=STD),),
        peers=place.peers(in_float, inputs, check),
        moved=size(inputs, outputs),
        # The triangle has 2 * scale taps: along rows for every row of the picture, along columns for every output.
        flops=2 * 3 * 2 * (pixels // SIDE) * (pixels * SIDE + SIDE**2),
        goals={"eager": 2},
        device=place.device,
    )
