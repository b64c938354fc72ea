"""Scaled dot-product attention: the slow float64 truth.

    S = scale q k^T + bias,   lse_i = log sum_j exp S_ij,   P = exp(S - lse),   out = P v   (Vaswani et al. 2017, eq. 1)

Backward by recomputation of P from lse (FlashAttention, Dao et al. 2022, appendix B); G is the gradient of out:

    dv = P^T G;   dP = G v^T;   dS = P (dP - rowsum(G out));   dq = scale dS k;   dk = scale dS^T q

With a gate (SAGAN, Zhang et al. 2019, eq. 3), out = residual + gamma P v: the sum of G (P v) is the gradient of gamma,
and all others are those of gamma G.

A bias by relative position (Swin, Liu et al. 2021) is added to S: query (y,x) and key (y',x') on a grid of h x w take
table[:, h-1 + y-y', w-1 + x-x']. The gradient of an entry is the sum of dS over the pairs (and images) that take it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def _transposed(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def places(grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the table for each pair of positions, each [L,L]."""
    y, x = (axis.reshape(-1) for axis in np.indices(grid))
    return grid[0] - 1 + y[:, None] - y, grid[1] - 1 + x[:, None] - x


def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    scale: float,
    bias: ArrayLike | None = None,
    grid: tuple[int, int] = (0, 0),
) -> tuple[Array, Array]:
    """q [N,H,L,dk], k [N,H,M,dk], v [N,H,M,dv], bias [H,2h-1,2w-1] -> (out [N,H,L,dv], lse [N,H,L])."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = scale * (q @ _transposed(k))
    if bias is not None:
        rows, columns = places(grid)
        scores = scores + np.asarray(bias, np.float64)[:, rows, columns]
    largest = scores.max(axis=-1, keepdims=True)
    lse = np.log(np.sum(np.exp(scores - largest), axis=-1, keepdims=True)) + largest
    return np.exp(scores - lse) @ v, lse[..., 0]


def attention_backward(
    grad_out: ArrayLike,
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    *,
    scale: float,
    bias: ArrayLike | None = None,
    grid: tuple[int, int] = (0, 0),
) -> tuple[Array, ...]:
    """grad_out [N,H,L,dv] -> gradients of q, k, v and bias. (lse is a by-product and receives no gradient.)"""
    grad_out, q, k, v = (np.asarray(x, np.float64) for x in (grad_out, q, k, v))
    out, lse = attention(q, k, v, scale=scale, bias=bias, grid=grid)
    scores = scale * (q @ _transposed(k))
    if bias is not None:
        rows, columns = places(grid)
        scores = scores + np.asarray(bias, np.float64)[:, rows, columns]
    weights = np.exp(scores - lse[..., None])
    grad_weights = grad_out @ _transposed(v)
    grad_scores = weights * (grad_weights - np.sum(grad_out * out, axis=-1, keepdims=True))
    grads = scale * (grad_scores @ k), scale * (_transposed(grad_scores) @ q), _transposed(weights) @ grad_out
    if bias is None:
        return grads
    grad_bias = np.zeros(np.shape(bias))
    for head, summed in enumerate(grad_scores.sum(0)):
        np.add.at(grad_bias[head], (rows, columns), summed)
    return *grads, grad_bias
