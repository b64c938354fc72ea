"""`gaussian`, `gaussian_mixture` and `gaussian_positions` as torch custom ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normscan.errors import ArgumentError
from normscan.ops.autograd.native import call, float32_under_autocast, ready, ready_features


@torch.library.custom_op("normscan::gaussian", mutates_args=())
def gaussian(z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float) -> Tensor:
    """One Gaussian; see `normscan.ops.gaussian`."""
    out = z.new_empty(z.shape[:1] + z.shape[2:])
    inputs = ready_features(z=z, mean=mean, whitener=whitener)
    call("gaussian", *inputs, out, output=output, saturation=saturation)
    return out


@gaussian.register_fake
def _(z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float) -> Tensor:
    del mean, whitener, output, saturation
    return z.new_empty(z.shape[:1] + z.shape[2:])


@torch.library.custom_op("normscan::gaussian_backward", mutates_args=())
def gaussian_backward(
    grad: Tensor, z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, mean and whitener (lower triangle)."""
    inputs = ready(grad=grad, z=z, mean=mean, whitener=whitener)
    grads = [torch.empty_like(t) for t in inputs[1:]]
    call("gaussian_backward", *inputs, *grads, output=output, saturation=saturation)
    return grads[0], grads[1], grads[2]


@gaussian_backward.register_fake
def _(
    grad: Tensor, z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float
) -> tuple[Tensor, Tensor, Tensor]:
    del grad, output, saturation
    return tuple(t.new_empty(t.shape) for t in (z, mean, whitener))  # type: ignore[return-value]


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, str, float], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:3])
    ctx.output, ctx.saturation = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    return *gaussian_backward(grad, *ctx.saved_tensors, ctx.output, ctx.saturation), None, None


gaussian.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("normscan::gaussian_positions", mutates_args=())
def gaussian_positions(z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float) -> Tensor:
    """A Gaussian at every position; see `normscan.ops.gaussian_positions`."""
    out = z.new_empty(z.shape[:1] + z.shape[2:])
    inputs = ready(z=z, mean=mean, whitener=whitener)
    call("gaussian_positions", *inputs, out, output=output, saturation=saturation)
    return out


@gaussian_positions.register_fake
def _(z: Tensor, mean: Tensor, whitener: Tensor, output: str, saturation: float) -> Tensor:
    del mean, whitener, output, saturation
    return z.new_empty(z.shape[:1] + z.shape[2:])


@torch.library.custom_op("normscan::gaussian_mixture", mutates_args=())
def gaussian_mixture(z: Tensor, means: Tensor, whiteners: Tensor, log_weights: Tensor) -> Tensor:
    """Several Gaussians; see `normscan.ops.gaussian_mixture`."""
    out = z.new_empty(z.shape[:1] + z.shape[2:])
    inputs = ready_features(z=z, means=means, whiteners=whiteners, log_weights=log_weights)
    call("gaussian_mixture", *inputs, out)
    return out


@gaussian_mixture.register_fake
def _(z: Tensor, means: Tensor, whiteners: Tensor, log_weights: Tensor) -> Tensor:
    del means, whiteners, log_weights
    return z.new_empty(z.shape[:1] + z.shape[2:])


def _refuse_for(op: str, *names: str) -> Callable[[Any, tuple[Any, ...], Tensor], None]:
    """Runs only where a gradient would be needed: better here than in a backward far from the call."""

    def refuse(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del ctx, output
        wanted = ", ".join(name for name, tensor in zip(names, inputs, strict=False) if tensor.requires_grad)
        raise ArgumentError(
            f"{op}: {wanted} requires a gradient, but there is no backward; "
            "expected detached tensors, or torch.no_grad()"
        )

    return refuse


def _no_backward(ctx: Any, grad: Tensor) -> None:
    raise AssertionError("the forward refuses tensors that require a gradient")  # pragma: no cover


gaussian_positions.register_autograd(
    _no_backward, setup_context=_refuse_for("gaussian_positions", "z", "mean", "whitener")
)
gaussian_mixture.register_autograd(
    _no_backward, setup_context=_refuse_for("gaussian_mixture", "z", "means", "whiteners", "log_weights")
)

for _op in (gaussian, gaussian_positions, gaussian_mixture):
    float32_under_autocast(_op)
