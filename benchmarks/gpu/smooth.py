"""`smooth` on a GPU, at two widths: a narrow blur moves memory; a wide one has too many products for that."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu.place import GIGABYTE_SHARE, Formula, Place, by, equals, in_float64, ours, size
from timing import Case
from torch import Tensor
from torch.nn import functional as F

SHAPE = (2048, 256, 256)
SIGMAS = {1.0: GIGABYTE_SHARE, 4.0: None}
"""With their goals. At sigma 4 a pixel of 8 bytes takes 132 operations: 70 TFLOP/s at 4 TB/s, more than GPUs have."""


def cases(place: Place) -> Iterator[Case]:
    """One at a time."""
    for sigma, share in SIGMAS.items():
        yield case(place, sigma, share)


def case(place: Place, sigma: float, share: float | None) -> Case:
    """Equal to torch's two convolutions in float64."""
    shape = place.shape(*SHAPE)
    inputs = place.normal(0, shape)
    formula = blurred(sigma, place.device)
    check = equals("smooth", in_float64(formula, inputs))
    outputs = place.outputs(shape)
    taps = 2 * int(4 * sigma + 0.5) + 1
    return Case(
        op="smooth",
        name=f"{by(shape)} sigma {sigma:g}",
        ours=(ours("smooth", inputs, outputs, check, sigma=sigma),),
        peers=place.peers(formula, inputs, check),
        moved=size(inputs, outputs),
        flops=2 * 2 * taps * inputs[0].numel(),
        device=place.device,
        share=share,
    )


def blurred(sigma: float, device: str) -> Formula:
    """Separable, the edge mirrored with its pixel repeated; maps [N,H,W] must be wider than the radius."""
    radius = int(4 * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64, device=device)
    exact = torch.softmax(-0.5 * (steps / sigma) ** 2, 0)
    weights = {dtype: exact.to(dtype) for dtype in (torch.float32, torch.float64)}

    def formula(maps: Tensor) -> Tensor:
        x, taps = maps[:, None], weights[maps.dtype]
        x = torch.cat([x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)], -1)
        x = torch.cat([x[..., :radius, :].flip(-2), x, x[..., -radius:, :].flip(-2)], -2)
        return F.conv2d(F.conv2d(x, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))[:, 0]

    return formula
