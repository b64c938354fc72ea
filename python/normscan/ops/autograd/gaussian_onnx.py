"""How the Gaussian ops are written in ONNX: products, sums of squares and elementary functions."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any

import torch

# Registered by import: the table below names them.
from normscan.ops.autograd import gaussian as _gaussian  # noqa: F401


def _packed_places(channels: int) -> list[int]:
    """Where the entries of a [C,C] triangle lie in its packed form; above the diagonal: a zero behind its end."""
    end = channels * (channels + 1) // 2
    return [i * (i + 1) // 2 + j if j <= i else end for i in range(channels) for j in range(channels)]


def translations(op: Any) -> dict[Any, Callable[..., Any]]:
    """The entries of `translation_table`; `op` is the opset."""

    def number(value: float, like: Any) -> Any:
        return op.CastLike(op.Constant(value_float=value), like)

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def finish(squared: Any, log_determinant: Callable[[], Any], channels: int, output: str, saturation: float) -> Any:
        if output == "saturated":  # 1 - e^-u = tanh(u/2) (1 + e^-u): no cancellation, and ONNX has no expm1
            u = op.Div(squared, number(saturation, squared))
            half = op.Tanh(op.Mul(u, number(0.5, squared)))
            return op.Mul(half, op.Add(op.Exp(op.Neg(u)), number(1.0, squared)))
        if output == "nll":
            half = op.Mul(squared, number(0.5, squared))
            offset = op.Sub(number(0.5 * channels * log(2 * pi), squared), log_determinant())
            return op.Add(half, offset)
        return squared

    def log_diagonal(full: Any, channels: int) -> Any:
        """[...,C,C] -> [...]: the sum of the logarithms of the diagonal's magnitudes."""
        places = op.Constant(value_ints=[i * (channels + 1) for i in range(channels)])
        flat = op.Reshape(full, op.Concat(op.Shape(full, end=-2), ints(-1), axis=0))
        return op.ReduceSum(op.Log(op.Abs(op.Gather(flat, places, axis=-1))), ints(-1), keepdims=0)

    def gaussian(z: Any, mean: Any, whitener: Any, output: str, saturation: float) -> Any:
        """[N,D] is [N,D,1], [N,C,H,W] is [N,C,H*W]; the result gets its shape back."""
        channels, full = int(mean.shape[0]), len(whitener.shape) == 2
        deviation = op.Sub(op.Reshape(z, ints(0, channels, -1)), op.Reshape(mean, ints(channels, 1)))
        if full:
            y = op.MatMul(op.Trilu(whitener, upper=0), deviation)
        else:
            y = op.Mul(deviation, op.Reshape(whitener, ints(-1, 1)))
        squared = op.ReduceSumSquare(y, ints(1), keepdims=0)

        def log_determinant() -> Any:
            if full:
                return log_diagonal(whitener, channels)
            repeated = channels // int(whitener.shape[0])
            return op.Mul(op.ReduceSum(op.Log(op.Abs(whitener)), keepdims=0), number(repeated, whitener))

        shape = op.Concat(op.Shape(z, end=1), op.Shape(z, start=2), axis=0)
        return op.Reshape(finish(squared, log_determinant, channels, output, saturation), shape)

    def gaussian_positions(z: Any, mean: Any, whitener: Any, output: str, saturation: float) -> Any:
        channels = int(mean.shape[0])
        if len(whitener.shape) == 3:
            padded = op.Pad(whitener, ints(0, 0, 0, 0, 0, 1))
            entries = op.Gather(padded, op.Constant(value_ints=_packed_places(channels)), axis=2)
            full = op.Reshape(entries, ints(0, 0, channels, channels))
        else:
            full = op.Trilu(whitener, upper=0)
        y = op.MatMul(full, op.Transpose(op.Sub(z, mean), perm=[2, 3, 1, 0]))  # [H,W,C,N]
        squared = op.Transpose(op.ReduceSumSquare(y, ints(2), keepdims=0), perm=[2, 0, 1])
        return finish(squared, lambda: log_diagonal(full, channels), channels, output, saturation)

    names = torch.ops.normscan
    return {names.gaussian.default: gaussian, names.gaussian_positions.default: gaussian_positions}
