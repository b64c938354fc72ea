"""`pool` on a GPU: the mean and the maximum of maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu.place import GIGABYTE_SHARE, Place, by, close, equals, in_float64, ours, size
from timing import Case

SHAPE = (4096, 256, 256)
METHODS = {"mean": lambda x: x.mean((1, 2)), "max": lambda x: x.amax((1, 2))}


def cases(place: Place) -> Iterator[Case]:
    """One at a time."""
    shape = place.shape(*SHAPE)
    for method, formula in METHODS.items():
        inputs = place.normal(0, shape)
        expected = in_float64(formula, inputs)
        outputs = place.outputs(shape[:1])
        yield Case(
            op="pool",
            name=f"{by(shape)} {method}",
            ours=(ours("pool", inputs, outputs, equals("pool", expected), method=method),),
            # torch sums in float32.
            peers=place.peers(formula, inputs, lambda found, want=expected: close(found, want, rtol=0, atol=1e-5)),
            moved=size(inputs, outputs),
            flops=torch.Size(shape).numel(),
            device=place.device,
            share=GIGABYTE_SHARE,
        )
