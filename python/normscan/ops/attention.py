"""Softmax attention without the L x M matrix in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from normscan import _native
from normscan.errors import ArgumentError
from normscan.ops import border


def attention(
    q: Any, k: Any, v: Any, *, scale: float | None = None, bias: Any = None, grid: tuple[int, int] | None = None
) -> Any:
    """softmax(q k^T * scale + bias) v (Vaswani et al. 2017, eq. 1; tiled as in FlashAttention, Dao et al. 2022).

    q        [N,H,L,dk];  k [N,H,M,dk];  v [N,H,M,dv], float32 or float64; dk and dv may differ
    scale    default 1/sqrt(dk)
    bias     [H,2h-1,2w-1], by relative position (Swin, Liu et al. 2021): the score of query (y,x) and key (y',x') gets
             bias[:, h-1 + y-y', w-1 + x-x']. Never spread out to L x M. -inf hides a key
    grid     (h, w), with bias only: L = M = h*w positions, row-major
    returns  [N,H,L,dv], dtype of q

    torch tensors are differentiable (backward by recomputation); double backward raises. A strided tensor is copied.
    """
    factor = float(q.shape[-1]) ** -0.5 if scale is None else float(scale)
    if (bias is None) != (grid is None):
        missing, found = ("grid", "bias") if grid is None else ("bias", "grid")
        raise ArgumentError(f"attention: {found} is given without {missing}; expected both or neither")
    if border.is_torch(q, k, v, *([] if bias is None else [bias])):
        from normscan.ops.autograd.attention import attention as torch_attention  # loads torch

        return torch_attention(q, k, v, factor, bias, grid)
    q, k, v = border.floating("q", q), border.floating("k", k), border.floating("v", v)
    table = None if bias is None else border.floating("bias", bias)
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    _native.attention(q, k, v, out, np.empty(q.shape[:-1], q.dtype), table, scale=factor, grid=grid)
    return out
