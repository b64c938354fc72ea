"""How far a latent lies from a Gaussian: its score."""

from __future__ import annotations

from typing import Any

import numpy as np

from normscan import _native
from normscan.ops import border


def gaussian(z: Any, mean: Any, whitener: Any, *, output: str = "squared_distance", saturation: float = 1.0) -> Any:
    """Squared Mahalanobis distance d2 = |W (z - mean)|^2 (PaDiM, eq. 2), or what `output` makes of it.

    z           [N,D], or [N,C,H,W] with one Gaussian shared by all positions
    mean        [D]
    whitener W  [1] isotropic 1/sigma, [D] diagonal 1/sigma, or [D,D] inverse Cholesky factor (lower triangle is read)
    output      "squared_distance"  d2, in squared standard deviations
                "saturated"         1 - exp(-d2 / saturation), in 0..1 (Welsch's function)
                "nll"               negative log-likelihood d2 / 2 + D log(2 pi) / 2 - log |det W|, in nats
    saturation  of "saturated": the squared distance that gives 1 - 1/e
    returns     [N] or [N,H,W], dtype of z (float32 or float64)

    torch tensors are differentiable in all three arguments; double backward raises. A strided tensor is copied,
    but [N,C,H,W] in channels_last is read in place.
    On a GPU a full float32 whitener is multiplied in float32, unless `torch.backends.cuda.matmul.allow_tf32`: then on
    tensor cores, factors rounded to 11 significant bits. A squared distance of 64 channels is then off by 1e-4 of
    itself on average, by 5e-4 at worst; of more channels by less.
    """
    if border.is_torch(z=z, mean=mean, whitener=whitener):
        from normscan.ops.autograd.gaussian import gaussian as torch_gaussian  # loads torch

        return torch_gaussian(z, mean, whitener, output, saturation)
    z = border.floating("z", z)
    out = np.empty(z.shape[:1] + z.shape[2:], z.dtype)
    factor = border.floating("whitener", whitener)
    _native.gaussian(z, border.floating("mean", mean), factor, out, output=output, saturation=saturation)
    return out


def gaussian_mixture(z: Any, means: Any, whiteners: Any, log_weights: Any) -> Any:
    """Negative log-likelihood of a mixture of K Gaussians: -log sum_k exp(log_weights[k] - nll_k), in nats.

    z            [N,D], or [N,C,H,W] with one mixture shared by all positions
    means        [K,D]
    whiteners    [K,1], [K,D] or [K,D,D]: of each component as in `gaussian`
    log_weights  [K], logarithms of weights that sum to 1; a component of -inf is left out
    returns      [N] or [N,H,W], dtype of z (float32 or float64)

    There is no backward: torch tensors that require a gradient are an `ArgumentError`. A strided tensor is copied.
    """
    if border.is_torch(z=z, means=means, whiteners=whiteners, log_weights=log_weights):
        from normscan.ops.autograd.gaussian import gaussian_mixture as torch_mixture  # loads torch

        return torch_mixture(z, means, whiteners, log_weights)
    z = border.floating("z", z)
    out = np.empty(z.shape[:1] + z.shape[2:], z.dtype)
    factors, logs = border.floating("whiteners", whiteners), border.floating("log_weights", log_weights)
    _native.gaussian_mixture(z, border.floating("means", means), factors, logs, out)
    return out


def gaussian_positions(
    z: Any, mean: Any, whitener: Any, *, output: str = "squared_distance", saturation: float = 1.0
) -> Any:
    """As `gaussian`, with a Gaussian of its own at every position (PaDiM, arXiv 2011.08785, eq. 2).

    z         [N,C,H,W]
    mean      [C,H,W]
    whitener  [H,W,C,C] inverse Cholesky factors (lower triangles are read), or packed [H,W,C(C+1)/2]: the rows of each
              lower triangle one after the other (`whitener[..., *np.tril_indices(C)]`), half the memory and faster
    output, saturation  as in `gaussian`
    returns   [N,H,W], dtype of z (float32 or float64)

    There is no backward: torch tensors that require a gradient are an `ArgumentError`. A strided tensor is copied.
    """
    if border.is_torch(z=z, mean=mean, whitener=whitener):
        from normscan.ops.autograd.gaussian import gaussian_positions as torch_positions  # loads torch

        return torch_positions(z, mean, whitener, output, saturation)
    z = border.floating("z", z)
    out = np.empty(z.shape[:1] + z.shape[2:], z.dtype)
    factor = border.floating("whitener", whitener)
    _native.gaussian_positions(z, border.floating("mean", mean), factor, out, output=output, saturation=saturation)
    return out
