"""`stain` on a GPU: residuals, and red pixels in windows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from bench_stain import red_ratio, residual
from gpu.place import GIGABYTE_SHARE, Place, by, close, in_float64, ours, size
from timing import Case

SHAPE = (512, 3, 256, 256)
METRICS = {"residual": (None, residual, GIGABYTE_SHARE), "red_ratio": (15, partial(red_ratio, window=15), None)}
"""Window, formula and goal. The windows' counts take 12 bytes a pixel between two kernels."""


def cases(place: Place) -> Iterator[Case]:
    """Colours of 8 bits, so that float32 finds the same ones red."""
    shape = place.shape(*SHAPE)
    for metric, (window, of, share) in METRICS.items():
        inputs = [x.mul(40).add(128).round().clamp(0, 255).div(255) for x in place.normal(0, shape, shape)]
        formula = partial(of, xp=torch)
        expected = in_float64(formula, inputs)
        outputs = place.outputs((shape[0], *shape[2:]))

        def check(found: torch.Tensor, want: torch.Tensor = expected) -> None:
            close(found, want, rtol=1e-5, atol=1e-6)

        yield Case(
            op="stain",
            name=f"{metric} {by(shape)}" + (f" window {window}" if window else ""),
            ours=(ours("stain", inputs, outputs, check, metric=metric, window=window),),
            peers=place.peers(formula, inputs, check),
            moved=size(inputs, outputs),
            flops=(10 if metric == "residual" else 40) * outputs[0].numel(),
            device=place.device,
            share=share,
        )
