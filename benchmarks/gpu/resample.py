"""`resample` on a GPU: maps of a network's last level brought to the size of the picture."""

from __future__ import annotations

from collections.abc import Iterator

from gpu.place import GIGABYTE_SHARE, Place, equals, in_float64, ours, size
from timing import Case
from torch import Tensor
from torch.nn import functional as F

IMAGES, SIDE, TO = 4096, 64, 256


def cases(place: Place) -> Iterator[Case]:
    """One."""
    n, side, _ = place.shape(IMAGES, SIDE, SIDE)
    to = 2 * side if place.quick else TO
    inputs = place.normal(0, (n, side, side))

    def interpolate(x: Tensor) -> Tensor:
        return F.interpolate(x[:, None], (to, to), mode="bilinear", align_corners=False)[:, 0]

    check = equals("resample", in_float64(interpolate, inputs))
    outputs = place.outputs((n, to, to))
    yield Case(
        op="resample",
        name=f"{n}x{side}x{side} to {to}",
        ours=(ours("resample", inputs, outputs, check),),
        peers=place.peers(interpolate, inputs, check),
        moved=size(inputs, outputs),
        flops=3 * 3 * outputs[0].numel(),  # three linear interpolations a pixel
        device=place.device,
        share=GIGABYTE_SHARE,
    )
