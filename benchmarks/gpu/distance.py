"""`distance` on a GPU: maps of one pair, a training step's share, and the fused levels of ResNet18."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from bench_distance import C1, C2, LEVELS, SIDE, SIGMA, WINDOW, cosine, l1
from gpu.place import GIGABYTE_SHARE, Check, Formula, Place, by, equals, in_float64, ours, size
from gpu.smooth import blurred
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F

from normscan import ops
from reference.distance import window_matrix


class Entry(NamedTuple):
    """One case: a metric at a shape. Moving memory is all there is to it, or not."""

    metric: str
    shape: tuple[int, ...]
    flops: int
    """A channel of a position."""
    training: bool = False
    moves: bool = False


SSIM_FLOPS = 5 * 4 * WINDOW + 20
ENTRIES = (
    Entry("cosine", (128, 256, 64, 64), 6, moves=True),
    Entry("l1", (640, 3, 256, 256), 3, moves=True),
    Entry("ssim", (128, 3, 256, 256), SSIM_FLOPS),
    Entry("cosine", (64, 256, 64, 64), 12, training=True),
    Entry("l1", (320, 3, 256, 256), 6, training=True),
    Entry("ssim", (128, 3, 256, 256), 2 * SSIM_FLOPS, training=True),
)
FUSED_IMAGES = (8, 288)
"""As on the CPU, and a gigabyte."""


def cases(place: Place) -> Iterator[Case]:
    """One at a time, so that their tensors do not lie in memory together."""
    for entry in ENTRIES:
        yield training(place, entry) if entry.training else forward(place, entry)
    for images in FUSED_IMAGES:
        yield levels_case(place, images)


def formula(metric: str, side: int, device: str, dtype: torch.dtype = torch.float32) -> Formula:
    """What people write; for ssim the local means as products with a band matrix, torch's fastest form."""
    if metric != "ssim":
        return {"cosine": cosine, "l1": l1}[metric]
    band = torch.from_numpy(window_matrix(side, WINDOW)).to(device, dtype)

    def ssim(a: Tensor, b: Tensor) -> Tensor:
        mean_a, mean_b, aa, bb, ab = (band @ torch.stack([a, b, a * a, b * b, a * b]) @ band.T).unbind()
        product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
        covariance, variances = ab - product, aa + bb - squares
        return 1 - ((2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))).mean(1)

    return ssim


def pair(place: Place, metric: str, shape: tuple[int, ...]) -> list[Tensor]:
    """Features of any sign for cosine; pictures in 0..1 for the rest, the second one the first with errors."""
    a, b = place.normal(0, shape, shape)
    if metric == "cosine":
        return [a, b]
    picture = torch.sigmoid(a)
    return [picture, (picture + 0.1 * b).clamp(0, 1)]


def with_gradients(run: Formula, inputs: list[Tensor], gradient: Tensor) -> Any:
    """The formula, then the gradients of its inputs."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    return torch.autograd.grad(run(*leaves), leaves, gradient)


def prepared(place: Place, entry: Entry) -> tuple[list[Tensor], Formula, Formula]:
    """Inputs, torch's formula, and the same in float64."""
    shape = place.shape(*entry.shape)
    forms = [formula(entry.metric, shape[-1], place.device, dtype) for dtype in (torch.float32, torch.float64)]
    return pair(place, entry.metric, shape), forms[0], forms[1]


def forward(place: Place, entry: Entry) -> Case:
    """The map of one pair."""
    inputs, peer, truth = prepared(place, entry)
    row = "distance_ssim" if entry.metric == "ssim" else "distance"
    check = equals(row, in_float64(truth, inputs))
    outputs = place.outputs(inputs[0][:, 0].shape)
    options: dict[str, Any] = {"metric": entry.metric, "window": WINDOW}
    op = Contender("op", lambda: ops.distance_map(*inputs, **options), check)
    contenders = (ours("distance", inputs, outputs, check, **options), op)
    return assemble(place, entry, inputs, contenders, place.peers(peer, inputs, check), size(inputs, outputs))


def training(place: Place, entry: Entry) -> Case:
    """The map, and the gradients of both inputs from a gradient of the map, through torch for everybody."""
    inputs, peer, truth = prepared(place, entry)
    (gradient,) = place.normal(1, inputs[0][:, 0].shape)
    row = "distance_ssim_backward" if entry.metric == "ssim" else "distance_backward"
    check = equals(row, *in_float64(lambda a, b, g: with_gradients(truth, [a, b], g), [*inputs, gradient]))
    op = contender("op", partial(ops.distance_map, metric=entry.metric, window=WINDOW), inputs, gradient, check)
    peers = [contender("eager", peer, inputs, gradient, check)]
    if not place.quick:
        function = torch.compile(peer, fullgraph=True, dynamic=False)
        peers.append(contender("compile", function, inputs, gradient, check))
    # The forward pass reads the inputs and writes the map; the backward one reads both and writes the gradients.
    return assemble(place, entry, inputs, (op,), peers, 3 * size(inputs) + 2 * size(gradient))


def contender(name: str, run: Formula, inputs: list[Tensor], gradient: Tensor, check: Check) -> Contender:
    """Forward and backward."""
    return Contender(name, lambda: with_gradients(run, inputs, gradient), check)


def assemble(
    place: Place, entry: Entry, inputs: list[Tensor], ours: tuple[Contender, ...], peers: list[Contender], moved: int
) -> Case:
    """The case of an entry."""
    shape = inputs[0].shape
    return Case(
        op="distance",
        name=f"{entry.metric} {by(shape)}" + " forward and backward" * entry.training,
        ours=ours,
        peers=peers,
        moved=moved,
        flops=entry.flops * shape.numel(),
        device=place.device,
        share=GIGABYTE_SHARE if entry.moves else None,
    )


def levels_case(place: Place, images: int) -> Case:
    """Several levels of features -> one map and score: cosine, upsampling, product, blur, maximum."""
    (n, *_), (side, *_) = place.shape(images), place.shape(SIDE)
    shapes = [place.shape(n, channels, width, width) for channels, width in LEVELS]
    inputs = [t for i, shape in enumerate(shapes) for t in place.normal(i, shape, shape)]
    pairs = list(zip(inputs[::2], inputs[1::2], strict=True))
    blur = blurred(SIGMA, place.device)

    def fused(*features: Tensor) -> tuple[Tensor, Tensor]:
        product: Any = 1.0
        for a, b in zip(features[::2], features[1::2], strict=True):
            level = 0.5 * (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1, keepdim=True)
            product = product * F.interpolate(level, (side, side), mode="bilinear", align_corners=False)
        maps = blur(product[:, 0])
        return maps, maps.amax((1, 2))

    check = equals("distance_maps", *in_float64(fused, inputs))
    outputs = place.outputs((n, side, side), (n,))
    options: dict[str, Any] = {"metric": "cosine", "fuse": "product"}
    native = ours(
        "distance_maps", [pairs], outputs, check, weights=[1.0] * len(pairs), sigma=SIGMA, pool="max", **options
    )
    op = Contender("op", lambda: ops.distance(pairs, size=(side, side), blur=SIGMA, **options), check)
    taps = 2 * int(4 * SIGMA + 0.5) + 1
    return Case(
        op="distance",
        name=f"fused levels of ResNet18, {n} images, {side} px",
        ours=(native, op),
        peers=place.peers(fused, inputs, check),
        moved=size(inputs, outputs),
        flops=6 * sum(t.numel() for t in inputs[::2]) + outputs[0].numel() * (7 * len(LEVELS) + 4 * taps),
        goals={"eager": 8, "compile": 3} if images == FUSED_IMAGES[0] else {},
        device=place.device,
    )
