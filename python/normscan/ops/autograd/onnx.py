"""How the custom ops are written in ONNX. Without this table the export of a network that uses them fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

# Registered by import: the table below names them.
from normscan.ops.autograd import attention as _attention  # noqa: F401
from normscan.ops.autograd import distance_onnx, gaussian_onnx


def _differences(size: int) -> list[int]:
    """Where each pair (query, key) of one axis finds its difference in a row of 2 size - 1."""
    return [size - 1 + query - key for query in range(size) for key in range(size)]


def translation_table(opset: int) -> dict[Any, Callable[..., Any]]:
    """`custom_translation_table` for `torch.onnx.export`: the ops in operators that every engine knows."""
    from onnxscript import values

    op = values.Opset("", opset)

    def spread(bias: Any, height: int, width: int) -> Any:
        """[H,2h-1,2w-1] -> [H,h*w,h*w], one axis at a time: the indices are h*h and w*w numbers, not (h*w)^2."""
        rows = op.Gather(bias, op.Constant(value_ints=_differences(height)), axis=1)
        both = op.Gather(rows, op.Constant(value_ints=_differences(width)), axis=2)
        pairs = op.Reshape(both, op.Constant(value_ints=[0, height, height, width, width]))  # y, y', x, x'
        turned = op.Transpose(pairs, perm=[0, 1, 3, 2, 4])
        return op.Reshape(turned, op.Constant(value_ints=[0, height * width, height * width]))

    def attention(q: Any, k: Any, v: Any, scale: float, bias: Any = None, grid: Sequence[int] | None = None) -> Any:
        """softmax(q k^T * scale + bias) v, and the log-sum-exp, which no exported graph uses."""
        factor = op.Constant(value_float=scale)
        scores = op.MatMul(op.Mul(q, factor), op.Transpose(k, perm=[0, 1, 3, 2]))
        if bias is not None and grid is not None:
            scores = op.Add(scores, spread(bias, *grid))
        return op.MatMul(op.Softmax(scores, axis=-1), v), op.ReduceLogSumExp(scores, keepdims=0)

    def gated(
        q: Any,
        k: Any,
        v: Any,
        residual: Any,
        gamma: Any,
        scale: float,
        keep: bool,
        bias: Any = None,
        grid: Sequence[int] | None = None,
    ) -> Any:
        """Residual + gamma * attention."""
        del keep
        attended, lse = attention(q, k, v, scale, bias, grid)
        return op.Add(residual, op.Mul(gamma, attended)), lse, attended

    return {
        torch.ops.normscan.attention_forward.default: attention,
        torch.ops.normscan.attention_gated.default: gated,
        **distance_onnx.translations(op),
        **gaussian_onnx.translations(op),
    }
