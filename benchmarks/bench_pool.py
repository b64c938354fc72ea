"""`pool`: a map to one number, against torch and numpy. "area" has no peer: neither knows connected components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from contenders import Array, eager, equals, normal, outputs, size, within
from timing import Case, Contender
from torch import Tensor

from normscan import _native
from reference import pool as reference

IMAGES, SIDE = 8, 256


class Entry(NamedTuple):
    """One case: a method, its parameter, and how torch and numpy say it of [N,H*W]."""

    method: str
    parameter: float
    in_torch: Callable[[Tensor], Tensor]
    in_numpy: Callable[[Array], Array]


def _top(x: Array) -> Array:
    k = ceil(0.01 * x.shape[1])
    return np.partition(x, -k, axis=1)[:, -k:].mean(axis=1)


ENTRIES = (
    Entry("mean", 0.0, lambda x: x.mean(1), lambda x: x.mean(axis=1)),
    Entry("max", 0.0, lambda x: x.amax(1), lambda x: x.max(axis=1)),
    Entry("topk", 0.01, lambda x: x.topk(ceil(0.01 * x.shape[1]), dim=1, sorted=False).values.mean(1), _top),
    Entry("quantile", 0.99, lambda x: torch.quantile(x, 0.99, dim=1), lambda x: np.quantile(x, 0.99, axis=1)),
)


def cases() -> Iterator[Case]:
    """One at a time."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Ours equals the float64 reference; the peers sum in float32."""
    (maps,) = normal(0, (IMAGES, SIDE, SIDE))
    (out,) = outputs((IMAGES,))
    expected = reference.pool(maps, method=entry.method, parameter=entry.parameter)
    rows, near = maps.reshape(IMAGES, -1), within(1e-5, expected)

    def native() -> Array:
        _native.pool(maps, out, method=entry.method, parameter=entry.parameter)
        return out

    return Case(
        op="pool",
        name=f"{IMAGES}x{SIDE}x{SIDE} {entry.method}" + (f" {entry.parameter:g}" if entry.parameter else ""),
        ours=(Contender("native", native, equals("pool", expected)),),
        peers=(
            eager(entry.in_torch, [rows], near),
            Contender("numpy", lambda: entry.in_numpy(rows), near),
        ),
        moved=size(maps, out),
        flops=maps.size,
    )
