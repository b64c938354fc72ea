"""How far a latent lies from a Gaussian: the slow float64 truth.

    y = W (z - mean),   d2 = sum_d y_d^2        (PaDiM, Defard et al. 2021, eq. 2, with W^T W = inverse covariance)
    out = d2,   1 - exp(-d2 / saturation)   or   d2 / 2 + D log(2 pi) / 2 - log |det W|

W is 1/sigma (isotropic, [1]), 1/sigma_d (diagonal, [D]) or the inverse Cholesky factor (full, [D,D]; only the lower
triangle is read). With g the gradient of the loss with respect to d2, and d = z - mean:

    dL/dy = 2 g y;   dL/dz = W^T dL/dy;   dL/dmean = -sum over images and positions of dL/dz;
    dL/dW_ij = sum of (dL/dy)_i d_j for j <= i, 0 above (diagonal form: its diagonal; isotropic: its trace); through
    the likelihood's determinant W_ii has, besides, the gradient -sum of dL/dout / W_ii
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def _full(whitener: Array, channels: int) -> Array:
    """The [D,D] matrix that any of the three forms stands for."""
    if whitener.ndim == 2:
        return np.tril(whitener)
    return np.diag(np.broadcast_to(whitener, (channels,)))


def _deviation(z: Array, mean: Array) -> Array:
    """z [N,D] or [N,C,H,W] -> z - mean with the channels last: [N,D] or [N,H,W,C]."""
    return np.moveaxis(z, 1, -1) - mean


def gaussian(
    z: ArrayLike, mean: ArrayLike, whitener: ArrayLike, *, output: str = "squared_distance", saturation: float = 1.0
) -> Array:
    """z [N,D] or [N,C,H,W], mean [D], whitener [1], [D] or [D,D] -> [N] or [N,H,W]."""
    z, mean, whitener = (np.asarray(x, np.float64) for x in (z, mean, whitener))
    full = _full(whitener, mean.size)
    squared = np.sum((_deviation(z, mean) @ full.T) ** 2, axis=-1)
    if output == "saturated":
        return -np.expm1(-squared / saturation)
    if output == "nll":
        return 0.5 * (squared + mean.size * np.log(2 * np.pi)) - np.log(np.abs(np.diag(full))).sum()
    return squared


def gaussian_backward(
    grad_out: ArrayLike,
    z: ArrayLike,
    mean: ArrayLike,
    whitener: ArrayLike,
    *,
    output: str = "squared_distance",
    saturation: float = 1.0,
) -> tuple[Array, Array, Array]:
    """grad_out as `gaussian`'s result -> gradients of z, mean and whitener, each in the shape of its argument."""
    grad_out, z, mean, whitener = (np.asarray(x, np.float64) for x in (grad_out, z, mean, whitener))
    full = _full(whitener, mean.size)
    deviation = _deviation(z, mean)
    slope = {"squared_distance": np.float64(1.0), "nll": np.float64(0.5)}.get(output)
    if slope is None:
        slope = np.exp(-gaussian(z, mean, whitener) / saturation) / saturation
    grad_y = 2.0 * (grad_out * slope)[..., None] * (deviation @ full.T)
    grad_deviation = grad_y @ full
    grad_full = grad_y.reshape(-1, mean.size).T @ deviation.reshape(-1, mean.size)
    if output == "nll":
        grad_full -= np.diag(grad_out.sum() / np.diag(full))
    if whitener.ndim == 2:
        grad_whitener = np.tril(grad_full)
    elif whitener.size == mean.size:
        grad_whitener = np.diag(grad_full).copy()
    else:
        grad_whitener = np.array([np.trace(grad_full)])
    return np.moveaxis(grad_deviation, -1, 1), -grad_deviation.reshape(-1, mean.size).sum(axis=0), grad_whitener


def gaussian_mixture(z: ArrayLike, means: ArrayLike, whiteners: ArrayLike, log_weights: ArrayLike) -> Array:
    """means [K,D], whiteners [K,1], [K,D] or [K,D,D], log_weights [K] -> [N] or [N,H,W], in nats."""
    means, whiteners, log_weights = (np.asarray(x, np.float64) for x in (means, whiteners, log_weights))
    parameters = zip(means, whiteners, log_weights, strict=True)
    likelihoods = [weight - gaussian(z, mean, whitener, output="nll") for mean, whitener, weight in parameters]
    return -np.logaddexp.reduce(likelihoods, axis=0)


def unpacked(packed: ArrayLike, channels: int) -> Array:
    """Packed lower triangles [..., C(C+1)/2], row after row -> [..., C, C] with zeros above the diagonal."""
    packed = np.asarray(packed, np.float64)
    full = np.zeros((*packed.shape[:-1], channels, channels))
    full[(..., *np.tril_indices(channels))] = packed
    return full


def gaussian_positions(
    z: ArrayLike, mean: ArrayLike, whitener: ArrayLike, *, output: str = "squared_distance", saturation: float = 1.0
) -> Array:
    """z [N,C,H,W], mean [C,H,W], whitener [H,W,C,C] or packed [H,W,C(C+1)/2] -> [N,H,W]: `gaussian` at each."""
    z, mean, whitener = (np.asarray(x, np.float64) for x in (z, mean, whitener))
    if whitener.ndim == 3:
        whitener = unpacked(whitener, len(mean))
    out = np.empty((len(z), *z.shape[2:]))
    for y, x in np.ndindex(*z.shape[2:]):
        out[:, y, x] = gaussian(z[:, :, y, x], mean[:, y, x], whitener[y, x], output=output, saturation=saturation)
    return out


def gaussian_positions_fit(z: ArrayLike, shrinkage: float) -> tuple[Array, Array, Array]:
    """z [N,C,H,W] -> mean [C,H,W], covariances and whiteners [H,W,C,C]: at each position the unbiased covariance S, and
    the inverse of the lower Cholesky factor of (1 - shrinkage) S + shrinkage (trace S / C) I.
    """
    z = np.asarray(z, np.float64)
    channels, height, width = z.shape[1:]
    covariances, whiteners = np.empty((2, height, width, channels, channels))
    for y, x in np.ndindex(height, width):
        covariances[y, x] = covariance = np.cov(z[:, :, y, x].T).reshape(channels, channels)
        variance = np.trace(covariance) / channels
        shrunk = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(channels)
        whiteners[y, x] = np.linalg.inv(np.linalg.cholesky(shrunk))
    return z.mean(axis=0), covariances, whiteners
