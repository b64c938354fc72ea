"""Scaled dot-product attention: the slow float64 truth.

    S = scale q k^T,   lse_i = log sum_j exp S_ij,   P = exp(S - lse),   out = P v      (Vaswani et al. 2017, eq. 1)

Backward by recomputation of P from lse (FlashAttention, Dao et al. 2022, appendix B); G is the gradient of out:

    dv = P^T G;   dP = G v^T;   dS = P (dP - rowsum(G out));   dq = scale dS k;   dk = scale dS^T q
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def attention(q: ArrayLike, k: ArrayLike, v: ArrayLike, *, scale: float) -> tuple[Array, Array]:
    """q [N,H,L,dk], k [N,H,M,dk], v [N,H,M,dv] -> (out [N,H,L,dv], lse [N,H,L])."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = scale * (q @ _transposed(k))
    largest = scores.max(axis=-1, keepdims=True)
    lse = np.log(np.sum(np.exp(scores - largest), axis=-1, keepdims=True)) + largest
    return np.exp(scores - lse) @ v, lse[..., 0]


def attention_backward(
    grad_out: ArrayLike, q: ArrayLike, k: ArrayLike, v: ArrayLike, *, scale: float
) -> tuple[Array, Array, Array]:
    """grad_out [N,H,L,dv] -> gradients of q, k and v. (lse is a by-product and receives no gradient.)"""
    grad_out, q, k, v = (np.asarray(x, np.float64) for x in (grad_out, q, k, v))
    out, lse = attention(q, k, v, scale=scale)
    weights = np.exp(scale * (q @ _transposed(k)) - lse[..., None])
    grad_weights = grad_out @ _transposed(v)
    grad_scores = weights * (grad_weights - np.sum(grad_out * out, axis=-1, keepdims=True))
    return scale * (grad_scores @ k), scale * (_transposed(grad_scores) @ q), _transposed(weights) @ grad_out
