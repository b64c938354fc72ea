"""`distance_map` as a torch custom op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normscan import _native
from normscan.ops.autograd.native import ready


@torch.library.custom_op("normscan::distance_map", mutates_args=())
def distance_map(a: Tensor, b: Tensor, metric: str, window: int) -> Tensor:
    """Distance at every position; see `normscan.ops.distance_map`."""
    out = a.new_empty(a.shape[:1] + a.shape[2:])
    found, reference = ready(a=a, b=b)
    _native.distance(found, reference, out, metric=metric, window=window)
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
    _native.distance_backward(*inputs, *grads, metric=metric, window=window)
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
