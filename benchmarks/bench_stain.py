"""`stain`: two pictures by their red, against the same in torch and numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from contenders import Array, Formula, compiled, eager, equals, in_numpy, outputs, size, within
from timing import Case, Contender
from torch.nn import functional as F

from normscan import _native
from reference import stain as reference

SHAPE = (8, 3, 256, 256)
FROM, TO = 350.0 - reference.HUE_SLACK, 16.0 + reference.HUE_SLACK


class Entry(NamedTuple):
    """One case: the metric, the window of its counts, and useful operations a pixel of both pictures."""

    metric: str
    window: int | None
    flops: int


ENTRIES = (Entry("residual", None, 10), Entry("red_ratio", None, 24), Entry("red_ratio", 15, 40))


def cases() -> Iterator[Case]:
    """One at a time."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Colours of 8 bits, so that float32 finds the same ones red."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, SHAPE).astype(np.float32) / np.float32(255) for _ in "ab")
    (out,) = outputs((SHAPE[0], *SHAPE[2:]))
    options = {"metric": entry.metric, "window": entry.window}
    expected = reference.stain(a, b, **options)
    near = within(1e-5, expected)
    in_torch, of_numpy = (partial(formula(entry), xp=xp) for xp in (torch, np))

    def native() -> Array:
        _native.stain(a, b, out, **options)
        return out

    return Case(
        op="stain",
        name=f"{entry.metric} 8x3x256x256" + (f" window {entry.window}" if entry.window else ""),
        ours=(Contender("native", native, equals("stain", expected)),),
        peers=(eager(in_torch, [a, b], near), compiled(in_torch, [a, b], near), in_numpy(of_numpy, [a, b], near)),
        moved=size(a, b, out),
        flops=entry.flops * out.size,
    )


def formula(entry: Entry) -> Formula:
    """For torch or numpy, as `xp` says."""
    return residual if entry.metric == "residual" else partial(red_ratio, window=entry.window)


def residual(a: Any, b: Any, xp: Any) -> Any:
    """Of red, what is 0 or above."""
    r_a, r_b = (x[:, 0] - 0.5 * (x[:, 1] + x[:, 2]) for x in (a, b))
    return (xp.where(r_b < 0, 0.0, r_b) - xp.where(r_a < 0, 0.0, r_a)) ** 2


def red_ratio(a: Any, b: Any, xp: Any, window: int | None) -> Any:
    """Counts of red pixels."""
    n_a, n_b = (counts(red(x, xp), window, xp) for x in (a, b))
    return (n_b + 1) / (n_a + 1) + xp.zeros_like(a[:, 0])


def red(x: Any, xp: Any) -> Any:
    """1 where the hue of HSV lies in the range, which is round the circle."""
    most, least = xp.amax(x, 1), xp.amin(x, 1)
    spread = most - least
    by = xp.where(spread > 0, spread, 1.0)
    r, g, b = x[:, 0], x[:, 1], x[:, 2]
    sixths = xp.where(most == r, (g - b) / by, xp.where(most == g, 2 + (b - r) / by, 4 + (r - g) / by))
    hue = xp.where(sixths < 0, sixths + 6, sixths) * 60
    return xp.where((spread > 0) & ((hue >= FROM) | (hue <= TO)), xp.ones_like(hue), 0.0)


def counts(values: Any, window: int | None, xp: Any) -> Any:
    """In the whole picture, or in windows: rows, then columns."""
    if window is None:
        return values.sum((1, 2))[:, None, None]
    half = window // 2
    if xp is torch:
        rows = F.avg_pool2d(values[:, None], (window, 1), 1, (half, 0), divisor_override=1)
        return F.avg_pool2d(rows, (1, window), 1, (0, half), divisor_override=1)[:, 0]
    for axis in (1, 2):
        sums = np.pad(values, [(half + 1, half) if axis == i else (0, 0) for i in range(3)]).cumsum(axis)
        side = values.shape[axis]
        values = sums.take(range(window, window + side), axis) - sums.take(range(side), axis)
    return values
