"""`gaussian`: squared Mahalanobis distance under a full covariance, against the matrix form that people write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from contenders import Array, Formula, compiled, doubles, eager, equals, in_numpy, normal, outputs, size, tensors
from timing import Case, Contender

from normscan import _native, ops


def rows(z: Any, mean: Any, whitener: Any) -> Any:
    """z [N,D] -> [N]."""
    y = (z - mean) @ whitener.T
    return (y * y).sum(-1)


def positions(z: Any, mean: Any, whitener: Any) -> Any:
    """z [N,C,H,W], one Gaussian shared by all positions -> [N,H,W]."""
    n, c, h, w = z.shape
    y = whitener @ (z - mean[:, None, None]).reshape(n, c, h * w)
    return (y * y).sum(1).reshape(n, h, w)


class Entry(NamedTuple):
    """One case: shapes, and what torch and numpy compute for them."""

    name: str
    z: tuple[int, ...]
    mean: tuple[int, ...]
    whitener: tuple[int, ...]
    formula: Formula
    goals: Mapping[str, float]


ENTRIES = (
    Entry("full 4096x512", (4096, 512), (512,), (512, 512), rows, {"eager": 1.7}),
    Entry("full 64x128", (64, 128), (128,), (128, 128), rows, {"eager": 1.5}),
    Entry("shared 8x100x56x56", (8, 100, 56, 56), (100,), (100, 100), positions, {}),
)


def cases() -> Iterator[Case]:
    """One at a time, so that their arrays do not lie in memory together."""
    for entry in ENTRIES:
        yield case(entry)


def case(entry: Entry) -> Case:
    """Whiteners are lower triangles whose distances are about D, as those of fitted Gaussians."""
    z, mean, factor = normal(0, entry.z, entry.mean, entry.whitener)
    side = entry.whitener[-1]
    whitener = np.ascontiguousarray(np.tril(factor / np.float32(side) ** 0.5))
    arrays = [z, mean, whitener]
    check = equals("gaussian", entry.formula(*doubles(arrays)))
    (out,) = outputs(entry.z[:1] + entry.z[2:])
    return Case(
        op="gaussian",
        name=entry.name,
        ours=(native(arrays, out, check), through_torch(arrays, check)),
        peers=(
            eager(entry.formula, arrays, check),
            compiled(entry.formula, arrays, check),
            in_numpy(entry.formula, arrays, check),
        ),
        moved=size(*arrays, out),
        # The lower triangle only, two operations a product, then a square and a sum for every channel.
        flops=out.size * (side * (side + 1) + 2 * side),
        goals=entry.goals,
    )


def native(arrays: list[Array], out: Array, check: Any) -> Contender:
    """The native function itself, into memory that is there."""

    def run() -> Array:
        _native.gaussian(*arrays, out)
        return out

    return Contender("native", run, check)


def through_torch(arrays: list[Array], check: Any) -> Contender:
    """The same by torch's dispatch, which allocates the output."""
    inputs = tensors(arrays)
    return Contender("op", lambda: ops.gaussian(*inputs), check)
