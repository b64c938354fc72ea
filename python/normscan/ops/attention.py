"""Softmax attention without the L x M matrix in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from normscan import _native
from normscan.ops import border


def attention(q: Any, k: Any, v: Any, *, scale: float | None = None) -> Any:
    """softmax(q k^T * scale) v (Vaswani et al. 2017, eq. 1; tiled as in FlashAttention, Dao et al. 2022).

    q        [N,H,L,dk];  k [N,H,M,dk];  v [N,H,M,dv], float32 or float64; dk and dv may differ
    scale    default 1/sqrt(dk)
    returns  [N,H,L,dv], dtype of q

    torch tensors are differentiable (backward by recomputation); double backward raises. A strided tensor is copied.
    """
    factor = float(q.shape[-1]) ** -0.5 if scale is None else float(scale)
    if border.is_torch(q, k, v):
        from normscan.ops.autograd.attention import attention as torch_attention  # loads torch

        return torch_attention(q, k, v, factor)
    q, k, v = border.floating("q", q), border.floating("k", k), border.floating("v", v)
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    _native.attention(q, k, v, out, np.empty(q.shape[:-1], q.dtype), scale=factor)
    return out
