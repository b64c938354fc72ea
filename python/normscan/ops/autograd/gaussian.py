"""`gaussian` as a torch custom op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normscan import _native
from normscan.ops.autograd.native import ready


@torch.library.custom_op("normscan::gaussian", mutates_args=())
def gaussian(z: Tensor, mean: Tensor, whitener: Tensor) -> Tensor:
    """Squared Mahalanobis distance; see `normscan.ops.gaussian`."""
    out = z.new_empty(z.shape[:1] + z.shape[2:])
    latent, centre, factor = ready(z=z, mean=mean, whitener=whitener)
    _native.gaussian(latent, centre, factor, out)
    return out


@gaussian.register_fake
def _(z: Tensor, mean: Tensor, whitener: Tensor) -> Tensor:
    return z.new_empty(z.shape[:1] + z.shape[2:])


@torch.library.custom_op("normscan::gaussian_backward", mutates_args=())
def gaussian_backward(grad: Tensor, z: Tensor, mean: Tensor, whitener: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, mean and whitener (lower triangle)."""
    inputs = ready(grad=grad, z=z, mean=mean, whitener=whitener)
    grads = [torch.empty_like(t) for t in inputs[1:]]
    _native.gaussian_backward(*inputs, *grads)
    return grads[0], grads[1], grads[2]


@gaussian_backward.register_fake
def _(grad: Tensor, z: Tensor, mean: Tensor, whitener: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    del grad
    return tuple(t.new_empty(t.shape) for t in (z, mean, whitener))  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = gaussian_backward(grad, *ctx.saved_tensors)
    return grads


gaussian.register_autograd(_backward, setup_context=_setup)
