"""Squared Mahalanobis distance to a Gaussian: the score of a latent."""

from __future__ import annotations

from typing import Any

import numpy as np

from normscan import _native
from normscan.ops import border


def gaussian(z: Any, mean: Any, whitener: Any) -> Any:
    """Squared Mahalanobis distance |W (z - mean)|^2, in squared standard deviations (Mahalanobis 1936; PaDiM, eq. 2).

    z         [N,D], or [N,C,H,W] with one Gaussian shared by all positions
    mean      [D]
    whitener  [1] isotropic 1/sigma, [D] diagonal 1/sigma, or [D,D] inverse Cholesky factor (lower triangle is read)
    returns   [N] or [N,H,W], dtype of z (float32 or float64)

    torch tensors are differentiable in all three arguments; double backward raises. A strided tensor is copied.
    """
    if border.is_torch(z=z, mean=mean, whitener=whitener):
        from normscan.ops.autograd.gaussian import gaussian as torch_gaussian  # loads torch

        return torch_gaussian(z, mean, whitener)
    z = border.floating("z", z)
    out = np.empty(z.shape[:1] + z.shape[2:], z.dtype)
    _native.gaussian(z, border.floating("mean", mean), border.floating("whitener", whitener), out)
    return out


def gaussian_positions(z: Any, mean: Any, whitener: Any) -> Any:
    """Squared Mahalanobis distance with a Gaussian of its own at every position (PaDiM, arXiv 2011.08785, eq. 2).

    z         [N,C,H,W]
    mean      [C,H,W]
    whitener  [H,W,C,C] inverse Cholesky factors (lower triangles are read), or packed [H,W,C(C+1)/2]: the rows of each
              lower triangle one after the other (`whitener[..., *np.tril_indices(C)]`), half the memory and faster
    returns   [N,H,W] in squared standard deviations, dtype of z (float32 or float64)

    There is no backward: torch tensors that require a gradient are an `ArgumentError`. A strided tensor is copied.
    """
    if border.is_torch(z=z, mean=mean, whitener=whitener):
        from normscan.ops.autograd.gaussian import gaussian_positions as torch_positions  # loads torch

        return torch_positions(z, mean, whitener)
    z = border.floating("z", z)
    out = np.empty(z.shape[:1] + z.shape[2:], z.dtype)
    _native.gaussian_positions(z, border.floating("mean", mean), border.floating("whitener", whitener), out)
    return out
