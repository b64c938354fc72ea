"""`gaussian`: squared Mahalanobis distance under a full covariance, against the matrix form that people write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from contenders import Array, Formula, compiled, doubles, eager, equals, in_numpy, normal, outputs, size, tensors
from timing import Case, Contender
from torch import Tensor

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


MIXED = (4096, 64)
"""Latents under a mixture of 8."""
OWN = (8, 100, 56, 56)
"""PaDiM's projected features of 8 images."""


def cases() -> Iterator[Case]:
    """One at a time, so that their arrays do not lie in memory together."""
    for entry in ENTRIES:
        yield case(entry)
    yield mixture_case()
    yield own_case()


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


def mixture_case() -> Case:
    """The likelihood of a mixture: numpy's truth, torch's distances of all components at once."""
    (n, d), k = MIXED, 8
    z, means, factors = normal(0, MIXED, (k, d), (k, d, d))
    whiteners = np.ascontiguousarray(np.tril(factors / np.float32(d) ** 0.5, -1) + np.eye(d, dtype=np.float32))
    arrays = [z, means, whiteners, np.full(k, -np.log(k), np.float32)]
    check = equals("gaussian_mixture", mixture(*(torch.from_numpy(x) for x in doubles(arrays))).numpy())
    (out,) = outputs((n,))

    def run() -> Array:
        _native.gaussian_mixture(*arrays, out)
        return out

    return Case(
        op="gaussian",
        name=f"mixture of {k} full {n}x{d}",
        ours=(Contender("native", run, check),),
        peers=(eager(mixture, arrays, check), compiled(mixture, arrays, check)),
        moved=size(*arrays, out),
        flops=out.size * k * (d * (d + 1) + 2 * d),
        goals={},
    )


def mixture(z: Tensor, means: Tensor, whiteners: Tensor, log_weights: Tensor) -> Tensor:
    """z [N,D] -> [N]; one batched product over the components."""
    y = torch.bmm(z[None] - means[:, None], whiteners.transpose(1, 2))  # [K,N,D]
    determinants = whiteners.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    logs = log_weights + determinants - 0.5 * z.shape[1] * np.log(2 * np.pi)
    return -torch.logsumexp(logs[:, None] - 0.5 * y.square().sum(2), 0)


def own_case() -> Case:
    """A Gaussian at every position (PaDiM): packed triangles, and the full ones that a batched product needs."""
    n, c, h, w = OWN
    z, mean, factor = normal(0, OWN, (c, h, w), (h, w, c, c))
    whitener = np.tril(factor / np.float32(c) ** 0.5)
    packed = np.ascontiguousarray(whitener[(..., *np.tril_indices(c))])
    deviation = (z.astype(np.float64) - mean).transpose(2, 3, 1, 0)
    truth = np.square(whitener.astype(np.float64) @ deviation).sum(2).transpose(2, 0, 1)
    check = equals("gaussian_positions", truth)
    (out,) = outputs((n, h, w))

    def run(factors: Array) -> Callable[[], Array]:
        def call() -> Array:
            _native.gaussian_positions(z, mean, factors, out)
            return out

        return call

    return Case(
        op="gaussian",
        name="own at each position 8x100x56x56",
        ours=(Contender("native", run(packed), check), Contender("native_full", run(whitener), check)),
        peers=(eager(batched, [z, mean, whitener], check), compiled(batched, [z, mean, whitener], check)),
        moved=size(z, mean, packed, out),
        flops=out.size * (c * (c + 1) + 2 * c),
        goals={"eager": 3},
    )


def batched(z: Tensor, mean: Tensor, whitener: Tensor) -> Tensor:
    """One contiguous batched product with the images as rows: of four forms tried the fastest, by 13x over einsum."""
    h, w, c, _ = whitener.shape
    rows_first = (z - mean).permute(2, 3, 0, 1).contiguous().view(h * w, -1, c)
    y = torch.bmm(rows_first, whitener.view(h * w, c, c).transpose(1, 2))
    return y.square().sum(2).T.view(-1, h, w)


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
