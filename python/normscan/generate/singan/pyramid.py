"""The pyramid of one picture: sizes, coarsest first, and how a picture gets from one to another."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from normscan.errors import InputError
from normscan.generate.singan.config import SinganConfig

Size = tuple[int, int]
"""Height, width."""


def pyramid_sizes(height: int, width: int, config: SinganConfig) -> tuple[Size, ...]:
    """Sizes of the scales of a picture of height x width, coarsest first.

    The finest has at most `max_size` on its longer side, the coarsest `min_size` on its shorter one. The number of
    scales follows from the factor, and the factor is then moved so that both ends are met exactly (paper, section 3).
    """
    shrink = min(1.0, config.max_size / max(height, width))
    shorter = min(height, width) * shrink
    if round(shorter) < config.min_size:
        raise InputError(
            f"found {height} x {width} pixels, which makes {round(shorter)} on the shorter side at most "
            f"{config.max_size} on the longer; expected at least min_size ({config.min_size}): take a larger or "
            "squarer picture, or raise max_size"
        )
    span = config.min_size / shorter
    steps = round(math.log(span) / math.log(config.factor)) if config.scales is None else config.scales - 1
    parts = [span ** (1 - n / steps) if steps else 1.0 for n in range(steps + 1)]
    return tuple((round(height * shrink * part), round(width * shrink * part)) for part in parts)


def scaled_sizes(sizes: tuple[Size, ...], target: Size) -> tuple[Size, ...]:
    """The scales of a sample of another size: each in the proportion of `target` to the finest."""
    (height, width), finest = target, sizes[-1]
    return tuple((max(1, round(h * height / finest[0])), max(1, round(w * width / finest[1]))) for h, w in sizes)


def resized(x: Tensor, size: Size) -> Tensor:
    """[1,C,H,W] in -1..1 to another size, bicubic, low-pass filtered where it shrinks; overshoot is clipped."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
