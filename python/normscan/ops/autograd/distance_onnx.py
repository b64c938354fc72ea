"""How `distance_map` is written in ONNX: the metrics that look at one position; windows stay with the native core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from normscan.errors import ArgumentError

# Registered by import: the table below names it.
from normscan.ops.autograd import distance as _distance  # noqa: F401

METRICS = ("l1", "l2", "cosine", "relative_l1")
_SMALLEST = 1e-12


def translations(op: Any) -> dict[Any, Callable[..., Any]]:
    """The entries of `translation_table`; `op` is the opset."""

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def at_least(x: Any) -> Any:
        return op.Max(x, op.CastLike(op.Constant(value_float=_SMALLEST), x))

    def unit(x: Any) -> Any:
        return op.Div(x, at_least(op.ReduceL2(x, ints(1), keepdims=1)))

    def distance_map(a: Any, b: Any, metric: str, window: int) -> Any:
        """[N,C,H,W] and its reference -> [N,H,W]."""
        del window
        if metric == "cosine":
            squared = op.ReduceSumSquare(op.Sub(unit(a), unit(b)), ints(1), keepdims=0)
            return op.Mul(squared, op.CastLike(op.Constant(value_float=0.5), squared))
        difference = op.Sub(a, b)
        if metric == "l2":
            return op.ReduceMean(op.Mul(difference, difference), ints(1), keepdims=0)
        found = op.ReduceMean(op.Abs(difference), ints(1), keepdims=0)
        if metric == "l1":
            return found
        if metric == "relative_l1":
            size = op.Reshape(op.ReduceMean(op.Abs(b), ints(1, 2, 3)), ints(-1, 1, 1))
            return op.Div(found, at_least(size))
        raise ArgumentError(f"metric is {metric!r}, expected one of {', '.join(METRICS)} in an exported graph")

    return {torch.ops.normscan.distance_map.default: distance_map}
