"""`distance`: maps of one pair of features or pictures, forward, and forward with backward as in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from contenders import (
    Array,
    Check,
    Formula,
    compiled,
    doubles,
    eager,
    equals,
    forward_and_backward,
    normal,
    outputs,
    size,
    tensors,
)
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F

from normscan import _native, ops
from reference import distance as reference
from reference import distance_maps as truth

WINDOW, C1, C2 = 11, reference.C1, reference.C2


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The one call that people write."""
    return 1 - F.cosine_similarity(a, b, dim=1)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean over channels."""
    return (a - b).abs().mean(1)


def ssim(side: int) -> Formula:
    """The local means as products with a band matrix: several times faster in torch than the usual convolutions."""
    band = torch.from_numpy(reference.window_matrix(side, WINDOW).astype(np.float32))

    def formula(a: Tensor, b: Tensor) -> Tensor:
        mean_a, mean_b, aa, bb, ab = (band @ torch.stack([a, b, a * a, b * b, a * b]) @ band.T).unbind()
        product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
        covariance, variances = ab - product, aa + bb - squares
        value = (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
        return 1 - value.mean(1)

    return formula


class Entry(NamedTuple):
    """One case: a metric at a shape, and what torch computes for it."""

    name: str
    metric: str
    shape: tuple[int, ...]
    formula: Formula
    training: bool
    flops: int
    """A channel of a position."""
    goals: Mapping[str, float] = {}


LEVELS = ((64, 64), (128, 32), (256, 16))
"""ResNet18's layers 1 to 3 at 256 pixels: channels, side."""
IMAGES, SIDE, SIGMA = 8, 256, 4.0
RADIUS = int(4 * SIGMA + 0.5)
TAPS = torch.softmax(-0.5 * (torch.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2, 0)
"""The weights of `smooth`: a Gaussian that sums to 1."""
PICTURES = (32, 3, 64, 64)
ENTRIES = (
    Entry("cosine 8x256x64x64", "cosine", (8, 256, 64, 64), cosine, False, 6, {"eager": 10}),
    Entry("l1 32x3x64x64", "l1", PICTURES, l1, False, 3),
    Entry("l1 32x3x64x64 forward and backward", "l1", PICTURES, l1, True, 6),
    Entry("ssim 32x3x64x64", "ssim", PICTURES, ssim(64), False, 5 * 4 * WINDOW + 20),
    Entry("ssim 32x3x64x64 forward and backward", "ssim", PICTURES, ssim(64), True, 2 * (5 * 4 * WINDOW + 20)),
)


def cases() -> Iterator[Case]:
    """One at a time, so that their arrays do not lie in memory together."""
    for entry in ENTRIES:
        yield training(entry) if entry.training else forward(entry)
    yield levels_case()


def levels_case() -> Case:
    """Several levels of features -> one map and score: cosine, upsampling, product, blur, maximum."""
    arrays = [a for channels, side in LEVELS for a in normal(channels, *[(IMAGES, channels, side, side)] * 2)]
    options = {"metric": "cosine", "fuse": "product"}
    weights = [1.0] * len(LEVELS)
    pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
    expected = truth.distance_maps(pairs, size=(SIDE, SIDE), weights=weights, sigma=SIGMA, pool_method="max", **options)
    check = equals("distance_maps", *expected)
    out, score = outputs((IMAGES, SIDE, SIDE), (IMAGES,))

    def native() -> tuple[Array, ...]:
        _native.distance_maps(pairs, out, score, weights=weights, sigma=SIGMA, pool="max", **options)
        return out, score

    inputs = tensors(arrays)
    op = partial(
        ops.distance, list(zip(inputs[::2], inputs[1::2], strict=True)), size=(SIDE, SIDE), blur=SIGMA, **options
    )
    return Case(
        op="distance",
        name="fused levels of ResNet18, 8 images, 256 px",
        ours=(Contender("native", native, check), Contender("op", op, check)),
        peers=(eager(fused, arrays, check), compiled(fused, arrays, check)),
        moved=size(*arrays, out, score),
        flops=6 * sum(a.size for a in arrays[::2]) + out.size * (7 * len(LEVELS) + 4 * len(TAPS)),
        goals={"eager": 8, "compile": 3},
    )


def fused(*features: Tensor) -> tuple[Tensor, Tensor]:
    """The same from torch's parts."""
    product: Tensor | float = 1.0
    for a, b in zip(features[::2], features[1::2], strict=True):
        level = 0.5 * (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1, keepdim=True)
        product = product * F.interpolate(level, (SIDE, SIDE), mode="bilinear", align_corners=False)
    blurred = blur(product)[:, 0]
    return blurred, blurred.amax((1, 2))


def blur(x: Tensor) -> Tensor:
    """Separable, the edge pixel repeated at the edges, as `smooth` has it."""
    x = torch.cat([x[..., :RADIUS].flip(-1), x, x[..., -RADIUS:].flip(-1)], -1)
    x = torch.cat([x[..., :RADIUS, :].flip(-2), x, x[..., -RADIUS:, :].flip(-2)], -2)
    return F.conv2d(F.conv2d(x, TAPS.view(1, 1, -1, 1)), TAPS.view(1, 1, 1, -1))


def pair(entry: Entry) -> list[Array]:
    """Features of any sign for cosine; pictures in 0..1 for the rest, the second one the first with errors."""
    if entry.metric == "cosine":
        return normal(0, entry.shape, entry.shape)
    rng = np.random.default_rng(0)
    a = rng.random(entry.shape, np.float32)
    return [a, np.clip(a + 0.1 * rng.standard_normal(entry.shape, np.float32), 0, 1)]


def bounds(metric: str, suffix: str = "") -> str:
    """The row of the table of tolerances."""
    return ("distance_ssim" if metric == "ssim" else "distance") + suffix


def forward(entry: Entry) -> Case:
    """The map of one pair."""
    arrays = pair(entry)
    check = equals(bounds(entry.metric), reference.distance(*doubles(arrays), metric=entry.metric, window=WINDOW))
    (out,) = outputs(entry.shape[:1] + entry.shape[2:])
    inputs = tensors(arrays)

    def native() -> Array:
        _native.distance(*arrays, out, metric=entry.metric, window=WINDOW)
        return out

    op = partial(ops.distance_map, *inputs, metric=entry.metric, window=WINDOW)
    return assemble(
        entry,
        (Contender("native", native, check), Contender("op", op, check)),
        (eager(entry.formula, arrays, check), compiled(entry.formula, arrays, check)),
        size(*arrays, out),
    )


def training(entry: Entry) -> Case:
    """The map, and the gradients of both inputs from a gradient of the map."""
    arrays = pair(entry)
    shape = entry.shape[:1] + entry.shape[2:]
    (gradient,) = normal(1, shape)
    check = equals(
        bounds(entry.metric, "_backward"),
        *reference.distance_backward(*doubles([gradient, *arrays]), metric=entry.metric, window=WINDOW),
    )
    out, *grads = outputs(shape, entry.shape, entry.shape)

    def native() -> tuple[Array, ...]:
        _native.distance(*arrays, out, metric=entry.metric, window=WINDOW)
        _native.distance_backward(gradient, *arrays, *grads, metric=entry.metric, window=WINDOW)
        return tuple(grads)

    def contender(name: str, formula: Callable[..., Any], check: Check = check) -> Contender:
        return Contender(name, forward_and_backward(formula, arrays, gradient), check)

    return assemble(
        entry,
        (
            Contender("native", native, check),
            contender("op", partial(ops.distance_map, metric=entry.metric, window=WINDOW)),
        ),
        (
            contender("eager", entry.formula),
            contender("compile", torch.compile(entry.formula, fullgraph=True, dynamic=False)),
        ),
        # The forward pass reads the inputs and writes the map; the backward one reads both and writes the gradients.
        2 * size(*arrays, out) + size(*grads),
    )


def assemble(entry: Entry, ours: tuple[Contender, ...], peers: tuple[Contender, ...], moved: int) -> Case:
    """The case of an entry."""
    flops = entry.flops * int(np.prod(entry.shape))
    return Case("distance", entry.name, ours, peers, moved, flops, entry.goals)
