"""Tasks that normal pictures set by themselves: which was cut and pasted, which way was it turned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLASSES = {"cutpaste": 2, "rotation": 4, "supervised": 1}
"""Outputs of the head."""
_PATCH = (0.02, 0.15)  # of the area (Li et al. 2021, CutPaste)
_ASPECT = 3.3  # and its inverse, as there
_JITTER = 0.3  # of the colour, in standard deviations of the prepared picture; there: 0.1 in brightness to hue
_SCAR = ((0.06, 0.16), (0.01, 0.06))  # length and width over the side, as 10..25 and 2..16 pixels of 256 are, widened


def rotated(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [N,C,S,S] -> each turned by 0, 90, 180 or 270 degrees, and which [N] (Gidaris et al. 2018)."""
    turn = torch.randint(4, (len(x),), generator=generator)
    turned = torch.stack([torch.rot90(image, int(k), (1, 2)) for image, k in zip(x, turn, strict=True)])
    return turned, turn.to(x.device)


def cutpaste(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [N,C,H,W] -> the pictures as they are and once more with a patch moved, [2N,C,H,W], and which [2N] (0, 1).

    Half of the patches are large (CutPaste), half are scars: long and thin, and turned by 90 degrees at random.
    """
    pasted = x.clone()
    for image in pasted:
        _paste(image, generator)
    return torch.cat([x, pasted]), torch.arange(2, device=x.device).repeat_interleave(len(x))


def _paste(image: Tensor, generator: torch.Generator) -> None:
    """Move one patch of image [C,H,W], its colours jittered, in place."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    sides = image.shape[1:]
    if uniform(0, 1) < 0.5:
        area = uniform(*_PATCH)
        aspect = math.exp(uniform(-math.log(_ASPECT), math.log(_ASPECT)))
        shape = (math.sqrt(area * aspect), math.sqrt(area / aspect))
    else:
        shape = (uniform(*_SCAR[0]), uniform(*_SCAR[1]))
        if uniform(0, 1) < 0.5:
            shape = shape[::-1]
    size = [min(max(1, round(share * side)), side) for share, side in zip(shape, sides, strict=True)]
    corners = [[int(uniform(0, s - part + 1 - 1e-6)) for s, part in zip(sides, size, strict=True)] for _ in range(2)]
    (top, left), (to_top, to_left) = corners
    patch = image[:, top : top + size[0], left : left + size[1]].clone()
    shift = _JITTER * torch.randn((len(image), 1, 1), generator=generator).to(image)
    image[:, to_top : to_top + size[0], to_left : to_left + size[1]] = patch + shift
