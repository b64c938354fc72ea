"""How many operations a network takes, from its graph."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

from normscan.deploy.bundle import Bundle


def gflop(bundle: Bundle) -> float | None:
    """Multiplications and additions of the products for one picture, 1e9; None without the package onnx."""
    if find_spec("onnx") is None:
        return None
    import onnx

    model = onnx.load_from_string(bundle.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.ClearField("value_info")  # of any batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: _dims(v) for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for node in inferred.node:  # a quantised weight has its shape
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    return sum(_operations(node, shapes) for node in inferred.node) / 1e9


def _dims(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _operations(node: Any, shapes: dict[str, list[int]]) -> float:
    given = [shapes.get(name, []) for name in node.input]
    made = shapes.get(node.output[0], [])
    if node.op_type == "Conv":  # each output value is a product over the weights of its channel
        return 2.0 * math.prod(made) * math.prod(given[1][1:])
    if node.op_type == "ConvTranspose":
        return 2.0 * math.prod(given[0]) * math.prod(given[1][1:])
    if node.op_type in ("MatMul", "Gemm") and made and given[0]:
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2.0 * math.prod(made) * given[0][0 if transposed else -1]
    return 0.0
