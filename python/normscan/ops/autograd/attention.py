"""`attention` as a torch custom op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normscan import _native
from normscan.ops.autograd.native import ready


@torch.library.custom_op("normscan::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, grid: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Output [N,H,L,dv], and the log-sum-exp [N,H,L] of the scores that the backward pass starts from."""
    out, lse = q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1])
    queries, keys, values, *table = ready(q=q, k=k, v=v, **_optional(bias))
    _native.attention(queries, keys, values, out, lse, *table, scale=scale, grid=_pair(grid))
    return out, lse


@attention_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, grid: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    del k, scale, bias, grid
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty(q.shape[:-1])


@torch.library.custom_op("normscan::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    bias: Tensor | None = None,
    grid: Sequence[int] | None = None,
) -> list[Tensor]:
    """Gradients of q, k, v and (where there is one) bias, by recomputing the probabilities from `lse`."""
    *inputs, out, lse = ready(grad=grad, q=q, k=k, v=v, **_optional(bias), out=out, lse=lse)
    upstream, queries, keys, values, *table = inputs
    grads = [torch.empty_like(t) for t in (queries, keys, values, *table)]
    _native.attention_backward(
        upstream, queries, keys, values, out, lse, *grads[:3], *table, *grads[3:], scale=scale, grid=_pair(grid)
    )
    return grads


@attention_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    bias: Tensor | None = None,
    grid: Sequence[int] | None = None,
) -> list[Tensor]:
    del grad, out, lse, scale, grid
    return [t.new_empty(t.shape) for t in (q, k, v, *_optional(bias).values())]


def _optional(bias: Tensor | None) -> dict[str, Tensor]:
    return {} if bias is None else {"bias": bias}


def _pair(grid: Sequence[int] | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    height, width = grid
    return height, width


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.scale, bias, ctx.grid = inputs
    ctx.save_for_backward(q, k, v, *output, bias)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    del grad_lse  # `attention` does not give the log-sum-exp away, so nothing can depend on it
    *saved, bias = ctx.saved_tensors
    q, k, v, *table = attention_backward(grad, *saved, ctx.scale, bias, ctx.grid)
    return q, k, v, None, table[0] if table else None, None


attention_forward.register_autograd(_backward, setup_context=_setup)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, grid: tuple[int, int] | None = None
) -> Tensor:
    """Softmax attention; see `normscan.ops.attention`."""
    out: Tensor = attention_forward(q, k, v, scale, bias, grid)[0]
    return out
