"""Distance maps between two pictures or two stacks of features: the slow float64 truth.

    l1           mean_c |a - b|
    l2           mean_c (a - b)^2
    cosine       0.5 sum_c (a/|a| - b/|b|)^2, norms over channels, at least 1e-12 (STFPM, Wang et al. 2021)
    relative_l1  mean_c |a - b| / max(mean_{c,p} |b|, 1e-12), one denominator per image (PIAD, arXiv 1909.05904)
    ssim         mean_c (1 - SSIM) (Wang et al. 2004, eq. 13)
    cs           mean_c (1 - CS), CS = A2 / B2 below: SSIM without its luminance (Wang et al. 2003, eq. 7)

SSIM has data range 1, K1 = 0.01, K2 = 0.03 and a Gaussian window of sigma 1.5; variances are weighted and biased. At
the border the window is cut to the picture and renormalised, so that the map has the picture's size. With E the
windowed mean,

    A1 = 2 E[a]E[b] + C1,  A2 = 2 (E[ab] - E[a]E[b]) + C2,  B1 = E[a]^2 + E[b]^2 + C1,  B2 = var a + var b + C2
    SSIM = A1 A2 / (B1 B2)

E is a matrix on rows and one on columns, so its adjoint is the pair of transposes. Everything is symmetric in (a, b)
but relative_l1, where b is the reference and the denominator counts as a constant in the backward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

METRICS = ("l1", "l2", "cosine", "relative_l1", "ssim", "cs")
WINDOWED = ("ssim", "cs")
SMALLEST_NORM = 1e-12
C1, C2, SIGMA = 0.01**2, 0.03**2, 1.5


def _unit(x: Array) -> tuple[Array, Array]:
    """x [N,C,H,W] -> (x / |x|, the clamped |x| [N,1,H,W])."""
    norm = np.maximum(np.sqrt(np.sum(x**2, axis=1, keepdims=True)), SMALLEST_NORM)
    return x / norm, norm


def _reference_size(b: Array) -> Array:
    """b [N,C,H,W] -> mean |b| of each image, [N,1,1]."""
    return np.maximum(np.mean(np.abs(b), axis=(1, 2, 3)), SMALLEST_NORM)[:, None, None]


def window_matrix(side: int, window: int) -> Array:
    """[side, side]; row i holds the Gaussian weights around i, cut to the picture, summing to 1."""
    offset = np.arange(side)[None, :] - np.arange(side)[:, None]
    weights = np.where(np.abs(offset) <= window // 2, np.exp(-(offset**2) / (2 * SIGMA**2)), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


class _Ssim:
    """The parts of SSIM that forward and backward share, for one pair [N,C,H,W]."""

    def __init__(self, a: Array, b: Array, window: int, luminance: bool) -> None:
        self.rows, self.columns = window_matrix(a.shape[2], window), window_matrix(a.shape[3], window)
        self.mean_a, self.mean_b = self.windowed(a), self.windowed(b)
        variance_a = self.windowed(a * a) - self.mean_a**2
        variance_b = self.windowed(b * b) - self.mean_b**2
        covariance = self.windowed(a * b) - self.mean_a * self.mean_b
        self.a1, self.a2 = 2 * self.mean_a * self.mean_b + C1, 2 * covariance + C2
        self.b1, self.b2 = self.mean_a**2 + self.mean_b**2 + C1, variance_a + variance_b + C2
        self.luminance = luminance
        self.value = self.a1 * self.a2 / (self.b1 * self.b2) if luminance else self.a2 / self.b2

    def windowed(self, x: Array) -> Array:
        return self.rows @ x @ self.columns.T

    def adjoint(self, x: Array) -> Array:
        return self.rows.T @ x @ self.columns

    def backward(self, grad: Array, a: Array, b: Array) -> Array:
        """The gradient with respect to a of sum(grad * value)."""
        if self.luminance:
            product = self.b1 * self.b2
            by_mean = 2 * self.mean_b * (self.a2 - self.a1) / product
            by_mean += 2 * self.mean_a * self.value * (1 / self.b2 - 1 / self.b1)
            by_square, by_product = -self.value / self.b2, 2 * self.a1 / product
        else:
            by_mean = 2 * (self.mean_a * self.value - self.mean_b) / self.b2
            by_square, by_product = -self.value / self.b2, 2 / self.b2
        return (
            self.adjoint(grad * by_mean) + 2 * a * self.adjoint(grad * by_square) + b * self.adjoint(grad * by_product)
        )


def distance(a: ArrayLike, b: ArrayLike, *, metric: str, window: int = 11) -> Array:
    """a, b [N,C,H,W] -> [N,H,W]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if metric == "l1":
        return np.mean(np.abs(a - b), axis=1)
    if metric == "l2":
        return np.mean((a - b) ** 2, axis=1)
    if metric == "cosine":
        return 0.5 * np.sum((_unit(a)[0] - _unit(b)[0]) ** 2, axis=1)
    if metric == "relative_l1":
        return np.mean(np.abs(a - b), axis=1) / _reference_size(b)
    if metric in WINDOWED:
        return np.mean(1.0 - _Ssim(a, b, window, metric == "ssim").value, axis=1)
    raise ValueError(f"metric is {metric!r}, expected one of {METRICS}")


def _cosine_backward(grad: Array, a: Array, b: Array) -> Array:
    unit_a, norm = _unit(a)
    grad_unit = grad * (unit_a - _unit(b)[0])
    # The projection is the norm's own derivative; a clamped norm is a constant and has none.
    radial = np.where(norm > SMALLEST_NORM, np.sum(unit_a * grad_unit, axis=1, keepdims=True), 0.0)
    return (grad_unit - unit_a * radial) / norm


def distance_backward(
    grad_out: ArrayLike, a: ArrayLike, b: ArrayLike, *, metric: str, window: int = 11
) -> tuple[Array, Array]:
    """grad_out [N,H,W], a, b [N,C,H,W] -> gradients of a and b. |x| has the derivative 0 at 0, as in torch."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    grad = np.asarray(grad_out, np.float64)
    channels = a.shape[1]
    if metric == "relative_l1":
        grad = grad / _reference_size(b)
    grad = grad[:, None]
    if metric in ("l1", "relative_l1"):
        grad_a = grad / channels * np.sign(a - b)
        return grad_a, -grad_a
    if metric == "l2":
        grad_a = grad / channels * 2 * (a - b)
        return grad_a, -grad_a
    if metric == "cosine":
        return _cosine_backward(grad, a, b), _cosine_backward(grad, b, a)
    if metric in WINDOWED:
        per_channel = np.broadcast_to(-grad / channels, a.shape)
        of_a, of_b = _Ssim(a, b, window, metric == "ssim"), _Ssim(b, a, window, metric == "ssim")
        return of_a.backward(per_channel, a, b), of_b.backward(per_channel, b, a)
    raise ValueError(f"metric is {metric!r}, expected one of {METRICS}")
