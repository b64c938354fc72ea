"""`attention` as torch custom ops: the plain one, and the one with a gate at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normscan.ops.autograd.native import call, is_map, ready_positions


def _like(t: Tensor, size: int) -> Tensor:
    """[N,H,L,size], lying in memory as `t` does: so what follows needs no copy where what came before needed none."""
    n, h, length, _ = t.shape
    if is_map(t):
        return t.new_empty((n, h, size, length)).transpose(2, 3)
    if t.stride(1) < t.stride(2):
        return t.new_empty((n, length, h, size)).transpose(1, 2)
    return t.new_empty((n, h, length, size))


def _sums(q: Tensor) -> torch.dtype:
    """The dtype of sums, of the bias and of gamma."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _outputs(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Out [N,H,L,dv] and lse [N,H,L]."""
    return _like(q, v.shape[-1]), q.new_empty(q.shape[:-1], dtype=_sums(q))


def _gradients(q: Tensor, k: Tensor, v: Tensor, **others: Tensor | None) -> dict[str, Tensor]:
    """Memory for the gradients of what is given, by native name."""
    found = {f"grad_{name}": _like(t, t.shape[-1]) for name, t in {"q": q, "k": k, "v": v}.items()}
    return found | {f"grad_{name}": t.new_empty(t.shape) for name, t in _given(**others).items()}


def _given(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if t is not None}


def _pair(grid: Sequence[int] | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    height, width = grid
    return height, width


def _ready(**tensors: Tensor | None) -> dict[str, Tensor]:
    given = _given(**tensors)
    return dict(zip(given, ready_positions(**given), strict=True))


@torch.library.custom_op("normscan::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, grid: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Output [N,H,L,dv], and the log-sum-exp [N,H,L] of the scores that the backward pass starts from."""
    inputs = _ready(q=q, k=k, v=v, bias=bias)
    out, lse = _outputs(q, v)
    call("attention", **inputs, out=out, lse=lse, scale=scale, grid=_pair(grid))
    return out, lse


@attention_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None, grid: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    del k, scale, bias, grid
    return _outputs(q, v)


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
    gamma: Tensor | None = None,
) -> list[Tensor]:
    """Gradients of q, k, v and (where there are) bias and gamma, by recomputing the probabilities from `lse`."""
    inputs = _ready(grad_out=grad, q=q, k=k, v=v, out=out, lse=lse, bias=bias, gamma=gamma)
    grads = _gradients(q, k, v, bias=bias, gamma=gamma)
    call("attention_backward", **inputs, **grads, scale=scale, grid=_pair(grid))
    return list(grads.values())


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
    gamma: Tensor | None = None,
) -> list[Tensor]:
    del grad, out, lse, scale, grid
    return list(_gradients(q, k, v, bias=bias, gamma=gamma).values())


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.scale, bias, ctx.grid = inputs
    ctx.save_for_backward(q, k, v, *output, bias)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    del grad_lse  # `attention` does not give the log-sum-exp away, so nothing can depend on it
    *saved, bias = ctx.saved_tensors
    q, k, v, *table = attention_backward(grad, *saved, ctx.scale, bias, ctx.grid)
    return q, k, v, None, table[0] if table else None, None


attention_forward.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("normscan::attention_gated", mutates_args=())
def attention_gated(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    residual: Tensor,
    gamma: Tensor,
    scale: float,
    keep: bool,
    bias: Tensor | None = None,
    grid: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Residual + gamma * attention, lse, and where `keep` the attention alone, which backward needs; else nothing [0].

    It is kept, not recomputed: as much memory as the two steps `x + gamma * attention(...)` would keep, and backward
    takes five products instead of seven.
    """
    inputs = _ready(q=q, k=k, v=v, bias=bias, residual=residual, gamma=gamma)
    out, lse = _outputs(q, v)
    attended = torch.empty_like(out) if keep else out.new_empty(0)
    kept = {"attended": attended} if keep else {}
    call("attention", **inputs, **kept, out=out, lse=lse, scale=scale, grid=_pair(grid))
    return out, lse, attended


@attention_gated.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    residual: Tensor,
    gamma: Tensor,
    scale: float,
    keep: bool,
    bias: Tensor | None = None,
    grid: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    del k, residual, gamma, scale, bias, grid
    out, lse = _outputs(q, v)
    return out, lse, torch.empty_like(out) if keep else out.new_empty(0)


def _setup_gated(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, _, gamma, ctx.scale, _, bias, ctx.grid = inputs
    _, lse, attended = output
    ctx.save_for_backward(q, k, v, attended, lse, bias, gamma)


def _backward_gated(ctx: Any, grad: Tensor, grad_lse: Tensor, grad_attended: Tensor) -> tuple[Tensor | None, ...]:
    del grad_lse, grad_attended  # as above: `attention` gives neither away
    *saved, bias, gamma = ctx.saved_tensors
    q, k, v, *table, of_gamma = attention_backward(grad, *saved, ctx.scale, bias, ctx.grid, gamma)
    return q, k, v, grad, of_gamma, None, None, table[0] if table else None, None


attention_gated.register_autograd(_backward_gated, setup_context=_setup_gated)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None = None,
    grid: tuple[int, int] | None = None,
    residual: Tensor | None = None,
    gamma: Tensor | None = None,
) -> Tensor:
    """Softmax attention; see `normscan.ops.attention`."""
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (_autocast(t) for t in (q, k, v))
        residual = None if residual is None else _autocast(residual)
    if q.dtype in (torch.float16, torch.bfloat16):
        bias, gamma = (None if t is None else t.float() for t in (bias, gamma))
    if residual is None or gamma is None:
        out: Tensor = attention_forward(q, k, v, scale, bias, grid)[0]
        return out
    inputs = _given(q=q, k=k, v=v, residual=residual, gamma=gamma, bias=bias).values()
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    gated: Tensor = attention_gated(q, k, v, residual, gamma, scale, keep, bias, grid)[0]
    return gated


def _autocast(t: Tensor) -> Tensor:
    """As torch's autocast does: float64 stays."""
    return t if t.dtype == torch.float64 else t.to(torch.get_autocast_dtype(t.device.type))
