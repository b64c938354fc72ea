"""`attention` as a torch custom op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normscan import _native
from normscan.ops.autograd.native import ready


@torch.library.custom_op("normscan::attention_forward", mutates_args=())
def attention_forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output [N,H,L,dv], and the log-sum-exp [N,H,L] of the scaled scores that the backward pass starts from."""
    out, lse = q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1])
    queries, keys, values = ready(q=q, k=k, v=v)
    _native.attention(queries, keys, values, out, lse, scale=scale)
    return out, lse


@attention_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    del k, scale
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1])


@torch.library.custom_op("normscan::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, by recomputing the probabilities from `lse`."""
    inputs = ready(grad=grad, q=q, k=k, v=v, out=out, lse=lse)
    grads = [torch.empty_like(t) for t in inputs[1:4]]
    _native.attention_backward(*inputs, *grads, scale=scale)
    return grads[0], grads[1], grads[2]


@attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    del grad, out, lse, scale
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.scale = inputs[3]


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    del grad_lse  # `attention` does not give the log-sum-exp away, so nothing can depend on it
    return *attention_backward(grad, *ctx.saved_tensors, ctx.scale), None


attention_forward.register_autograd(_backward, setup_context=_setup)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention; see `normscan.ops.attention`."""
    out: Tensor = attention_forward(q, k, v, scale)[0]
    return out
