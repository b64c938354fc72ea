"""`gaussian` on a GPU: isotropic, diagonal, full, mixed, and one at every position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from bench_gaussian import batched, mixture, positions, rows
from gpu.place import GIGABYTE_SHARE, Formula, Place, by, equals, in_float64, ours, size
from timing import Case, Contender
from torch import Tensor

from normscan import ops


def scaled(z: Tensor, mean: Tensor, whitener: Tensor) -> Tensor:
    """z [N,D] under an isotropic or diagonal Gaussian -> [N]."""
    return ((z - mean) * whitener).square().sum(1)


def scaled_maps(z: Tensor, mean: Tensor, whitener: Tensor) -> Tensor:
    """z [N,C,H,W] -> [N,H,W]."""
    return ((z - mean[:, None, None]) * whitener[:, None, None]).square().sum(1)


class Entry(NamedTuple):
    """One case: shapes, what torch computes for them, and whether moving memory is all there is to it."""

    name: str
    z: tuple[int, ...]
    whitener: tuple[int, ...]
    formula: Formula
    moves: bool = False


ENTRIES = (
    Entry("isotropic", (524288, 512), (1,), scaled, moves=True),
    Entry("diagonal", (524288, 512), (512,), scaled, moves=True),
    Entry("diagonal, shared by positions", (128, 512, 64, 64), (512,), scaled_maps, moves=True),
    Entry("full", (4096, 512), (512, 512), rows),
    Entry("full", (65536, 512), (512, 512), rows),
    Entry("full", (64, 128), (128, 128), rows),
    Entry("full, shared by positions", (8, 100, 56, 56), (100, 100), positions),
)
MIXED, COMPONENTS = (65536, 64), 8
OWN = ((8, 100, 56, 56), (8, 550, 56, 56))
"""PaDiM's projected features of 8 images: of ResNet18, and of a wide ResNet50, whose factors alone are 1.9 GB."""


def cases(place: Place) -> Iterator[Case]:
    """One at a time, so that their tensors do not lie in memory together."""
    for entry in ENTRIES:
        yield case(place, entry)
    yield mixture_case(place)
    for shape in OWN:
        yield own_case(place, shape)


def case(place: Place, entry: Entry) -> Case:
    """Whiteners under which distances are about D, as those of fitted Gaussians."""
    shape, sides = place.shape(*entry.z), place.shape(*entry.whitener)
    z, mean, whitener = place.normal(0, shape, shape[1:2], sides)
    full = len(sides) == 2
    whitener = (whitener / sides[0] ** 0.5).tril() if full else whitener.abs() + 0.5
    inputs = [z, mean, whitener]
    check = equals("gaussian", in_float64(entry.formula, [z], mean, whitener))
    outputs = place.outputs(shape[:1] + shape[2:])
    d = shape[1]
    return Case(
        op="gaussian",
        name=f"{entry.name} {by(shape)}",
        ours=(
            ours("gaussian", inputs, outputs, check),
            Contender("op", lambda: ops.gaussian(*inputs), check),
        ),
        peers=place.peers(entry.formula, inputs, check),
        moved=size(inputs, outputs),
        flops=outputs[0].numel() * (d * (d + 1) + 2 * d if full else 4 * d),
        goals={"eager": 1.7} if shape == (4096, 512) else {},
        device=place.device,
        share=GIGABYTE_SHARE if entry.moves else None,
    )


def mixture_case(place: Place) -> Case:
    """The likelihood of a mixture of full Gaussians."""
    (n, d), k = place.shape(*MIXED), COMPONENTS
    z, means, factors = place.normal(0, (n, d), (k, d), (k, d, d))
    whiteners = (factors / d**0.5).tril(-1) + torch.eye(d, device=place.device)
    logs = torch.full((k,), 1 / k, device=place.device).log()
    inputs = [z, means, whiteners, logs]
    check = equals("gaussian_mixture", in_float64(mixture, [z], means, whiteners, logs))
    outputs = place.outputs((n,))
    return Case(
        op="gaussian",
        name=f"mixture of {k} full {by((n, d))}",
        ours=(
            ours("gaussian_mixture", inputs, outputs, check),
            Contender("op", lambda: ops.gaussian_mixture(*inputs), check),
        ),
        peers=place.peers(mixture, inputs, check),
        moved=size(inputs, outputs),
        flops=n * k * (d * (d + 1) + 2 * d),
        device=place.device,
    )


def own_case(place: Place, sizes: tuple[int, ...]) -> Case:
    """A Gaussian at every position: packed triangles for ours, full ones for the batched product of torch."""
    shape = n, c, h, w = place.shape(*sizes)
    z, mean, packed = place.normal(0, shape, (c, h, w), (h, w, c * (c + 1) // 2))
    packed /= c**0.5
    check = equals("gaussian_positions", own_truth(z, mean, packed))
    outputs = place.outputs((n, h, w))
    moved = size(z, mean, packed, outputs)
    return Case(
        op="gaussian",
        name=f"own at each position {by(shape)}",
        ours=(
            ours("gaussian_positions", [z, mean, packed], outputs, check),
            Contender("op", lambda: ops.gaussian_positions(z, mean, packed), check),
        ),
        peers=place.peers(batched, [z, mean, unpacked(packed, c)], check),
        moved=moved,
        flops=outputs[0].numel() * (c * (c + 1) + 2 * c),
        device=place.device,
        share=GIGABYTE_SHARE if moved >= 1e9 else None,
    )


def unpacked(packed: Tensor, c: int) -> Tensor:
    """Rows of lower triangles one after the other -> [...,c,c]."""
    full = packed.new_zeros((*packed.shape[:-1], c, c))
    row, column = torch.tril_indices(c, c, device=packed.device)
    full[..., row, column] = packed
    return full


def own_truth(z: Tensor, mean: Tensor, packed: Tensor) -> Tensor:
    """In float64, one row of positions at a time."""
    c, h = mean.shape[:2]
    found: list[Any] = []
    for y in range(h):
        factors = unpacked(packed[y].double(), c)  # [w,c,c]
        deviation = (z[:, :, y].double() - mean[:, y].double()).permute(2, 1, 0)  # [w,c,n]
        found.append((factors @ deviation).square().sum(1).T)
    return torch.stack(found, 1)
