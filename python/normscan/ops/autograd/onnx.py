"""How the custom ops are written in ONNX. Without this table the export of a network that uses them fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Registered by import: the table below names them.
from normscan.ops.autograd import attention as _attention  # noqa: F401


def translation_table(opset: int) -> dict[Any, Callable[..., Any]]:
    """`custom_translation_table` for `torch.onnx.export`: attention as MatMul and Softmax, which every engine knows."""
    from onnxscript import values

    op = values.Opset("", opset)

    def attention(q: Any, k: Any, v: Any, scale: float) -> Any:
        """softmax(q k^T * scale) v, and the log-sum-exp, which no exported graph uses."""
        factor = op.Constant(value_float=scale)
        scores = op.MatMul(op.Mul(q, factor), op.Transpose(k, perm=[0, 1, 3, 2]))
        return op.MatMul(op.Softmax(scores, axis=-1), v), op.ReduceLogSumExp(scores, keepdims=0)

    return {torch.ops.normscan.attention_forward.default: attention}
