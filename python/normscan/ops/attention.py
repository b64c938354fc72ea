"""Softmax attention without the L x M matrix in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from normscan import _native
from normscan.errors import ArgumentError
from normscan.ops import border

_LAYOUTS = {"q": "[N,H,L,dk]", "k": "[N,H,M,dk]", "v": "[N,H,M,dv]", "residual": "[N,H,L,dv]"}
_MOST_BYTES = 2**47
"""What a process can address (x86-64, aarch64)."""


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None = None,
    bias: Any = None,
    grid: tuple[int, int] | None = None,
    residual: Any = None,
    gamma: Any = None,
) -> Any:
    """softmax(q k^T * scale + bias) v (Vaswani et al. 2017, eq. 1; tiled as in FlashAttention, Dao et al. 2022).

    q         [N,H,L,dk];  k [N,H,M,dk];  v [N,H,M,dv], all float32, float64, float16 or bfloat16; dk and dv may differ
    scale     default 1/sqrt(dk)
    bias      [H,2h-1,2w-1], by relative position (Swin, Liu et al. 2021): the score of query (y,x) and key (y',x') gets
              bias[:, h-1 + y-y', w-1 + x-x']. Never spread out to L x M. -inf hides a key
    grid      (h, w), with bias only: L = M = h*w positions, row-major
    residual  [N,H,L,dv], dtype of q, with `gamma` [1]: returns residual + gamma * attention (the gate of SAGAN, Zhang
              et al. 2019, eq. 3), fused into the tiles
    returns   [N,H,L,dv], dtype of q

    float16 and bfloat16 are summed in float32, which bias and gamma are then, too. torch tensors are differentiable
    (backward by recomputation); double backward raises. They may be float16 or bfloat16 in bias and gamma, and under
    torch.autocast the others take its dtype, as in torch's own attention. A tensor without side-by-side channels (or,
    with one head, positions) is copied.

    On a GPU, float32 is multiplied as tf32 where torch.backends.cuda.matmul.allow_tf32 says so.
    """
    given = {"q": q, "k": k, "v": v, "bias": bias, "residual": residual, "gamma": gamma}
    given = {name: value for name, value in given.items() if value is not None}
    _check_pair("bias", bias, "grid", grid)
    _check_pair("residual", residual, "gamma", gamma)
    is_torch = border.is_torch(**given)
    _check_shapes(given)
    factor = float(q.shape[-1]) ** -0.5 if scale is None else float(scale)
    if is_torch:
        from normscan.ops.autograd.attention import attention as torch_attention  # loads torch

        return torch_attention(q, k, v, factor, bias, grid, residual, gamma)
    sums = np.float64 if q.dtype == np.float64 else np.float32
    tensors = {name: border.positions(name, value) for name, value in given.items()}
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    _native.attention(out=out, lse=np.empty(q.shape[:-1], sums), scale=factor, grid=grid, **tensors)
    return out


def _check_pair(one: str, first: Any, other: str, second: Any) -> None:
    if (first is None) != (second is None):
        found, missing = (one, other) if second is None else (other, one)
        raise ArgumentError(f"attention: {found} is given without {missing}; expected both or neither")


def _check_shapes(tensors: dict[str, Any]) -> None:
    """Ranks, and sizes that memory can have: what is needed before outputs can be made. The rest is native."""
    for name, layout in _LAYOUTS.items():
        shape = list(tensors[name].shape) if name in tensors else [1] * 4
        if len(shape) != 4:
            raise ArgumentError(f"attention: {name} has {len(shape)} dimensions {shape}, expected {layout}")
        _check_bytes(name, shape)
    q, v = tensors["q"], tensors["v"]
    if q.shape[-1] == 0:
        raise ArgumentError(f"attention: q has shape {list(q.shape)}, expected [N,H,L,dk] with dk of at least 1")
    _check_bytes("q and v ask for an output that", [*q.shape[:-1], v.shape[-1]])


def _check_bytes(name: str, shape: list[Any]) -> None:
    symbolic = not all(type(n) is int for n in shape)  # under torch.compile
    if not symbolic and 8 * math.prod(shape) > _MOST_BYTES:
        raise ArgumentError(f"attention: {name} has shape {shape}, expected at most 2^47 bytes")
