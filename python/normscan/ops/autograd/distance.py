"""`distance_map` and `distance` as torch custom ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normscan.errors import ArgumentError
from normscan.ops.autograd.native import call, float32_under_autocast, ready, ready_features


@torch.library.custom_op("normscan::distance_map", mutates_args=())
def distance_map(a: Tensor, b: Tensor, metric: str, window: int) -> Tensor:
    """Distance at every position; see `normscan.ops.distance_map`."""
    out = a.new_empty(a.shape[:1] + a.shape[2:])
    found, reference = ready_features(a=a, b=b)
    call("distance", found, reference, out, metric=metric, window=window)
    return out


@distance_map.register_fake
def _(a: Tensor, b: Tensor, metric: str, window: int) -> Tensor:
    del b, metric, window
    return a.new_empty(a.shape[:1] + a.shape[2:])


@torch.library.custom_op("normscan::distance_map_backward", mutates_args=())
def distance_map_backward(grad: Tensor, a: Tensor, b: Tensor, metric: str, window: int) -> tuple[Tensor, Tensor]:
    """Gradients of a and b."""
    inputs = ready(grad=grad, a=a, b=b)
    grads = [torch.empty_like(t) for t in inputs[1:]]
    call("distance_backward", *inputs, *grads, metric=metric, window=window)
    return grads[0], grads[1]


@distance_map_backward.register_fake
def _(grad: Tensor, a: Tensor, b: Tensor, metric: str, window: int) -> tuple[Tensor, Tensor]:
    del grad, metric, window
    return a.new_empty(a.shape), b.new_empty(b.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, str, int], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:2])
    ctx.metric, ctx.window = inputs[2:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    return *distance_map_backward(grad, *ctx.saved_tensors, ctx.metric, ctx.window), None, None


distance_map.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("normscan::distance", mutates_args=())
def distance_forward(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    metric: str,
    size: Sequence[int],
    fuse: str,
    weights: Sequence[float],
    blur: float,
    pool: str,
    parameter: float,
) -> tuple[Tensor, Tensor]:
    """Fused map [N,H,W] and score [N]; see `normscan.ops.distance`."""
    out, score = a[0].new_empty((*a[0].shape[:1], *size)), a[0].new_empty(a[0].shape[:1])
    found = ready_features(**{f"pairs[{i}].a": t for i, t in enumerate(a)})
    reference = ready_features(**{f"pairs[{i}].b": t for i, t in enumerate(b)})
    levels = list(zip(found, reference, strict=True))
    call(
        "distance_maps",
        levels,
        out,
        score,
        metric=metric,
        weights=weights,
        fuse=fuse,
        sigma=blur,
        pool=pool,
        parameter=parameter,
    )
    return out, score


@distance_forward.register_fake
def _(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    metric: str,
    size: Sequence[int],
    fuse: str,
    weights: Sequence[float],
    blur: float,
    pool: str,
    parameter: float,
) -> tuple[Tensor, Tensor]:
    del b, metric, fuse, weights, blur, pool, parameter
    return a[0].new_empty((*a[0].shape[:1], *size)), a[0].new_empty(a[0].shape[:1])


for _op in (distance_map, distance_forward):
    float32_under_autocast(_op)


def distance(
    pairs: Sequence[tuple[Tensor, Tensor]],
    metric: str,
    size: tuple[int, int],
    fuse: str,
    weights: Sequence[float],
    blur: float,
    pool: str,
    parameter: float,
) -> tuple[Tensor, Tensor]:
    """Fused map and score; see `normscan.ops.distance`."""
    for i, pair in enumerate(pairs):
        for side, tensor in zip("ab", pair, strict=True):
            if tensor.requires_grad and torch.is_grad_enabled():
                raise ArgumentError(
                    f"pairs[{i}].{side} requires a gradient, which distance has not; expected a detached tensor or "
                    "torch.no_grad() (distance_map is differentiable)"
                )
    found, reference = [a for a, _ in pairs], [b for _, b in pairs]
    result: tuple[Tensor, Tensor] = distance_forward(
        found, reference, metric, list(size), fuse, weights, blur, pool, parameter
    )
    return result
