"""The precision of a network, decided in its ONNX graph: what is float16 or bfloat16 there is so on every engine.

Convolutions and matrix products are what is computed in 16 or 8 bits, and in 16 what lies between two of them. What
an operator needs in float32 (a softmax, a sum, a division), what joins the network's own input, and what comes after
the last product stays so: no value that scoring compares is rounded once it was made. Inputs and outputs are float32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from normscan.deploy.bundle import PRECISIONS
from normscan.deploy.quantisation import quantisable, quantise
from normscan.errors import ArgumentError

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class _Half(NamedTuple):
    """A type of 16 bits, and what may have it."""

    type: int
    opset: int
    """The first in which a convolution may have this type."""
    products: frozenset[str]


_HALVES = {
    "fp16": _Half(TensorProto.FLOAT16, 18, PRODUCTS),
    # TensorRT-RTX 1.7 has no transposed convolution in bfloat16 ("could not infer output types").
    "bf16": _Half(TensorProto.BFLOAT16, 22, PRODUCTS - {"ConvTranspose"}),
    # Beside int8 convolutions: Turing (sm75) has no float32 matrix product in TensorRT-RTX.
    "int8": _Half(TensorProto.FLOAT16, 18, frozenset({"Gemm", "MatMul"})),
}
# fmt: off
_BETWEEN = frozenset((
    "Add", "AveragePool", "Clip", "Concat", "Expand", "Flatten", "Gather", "GlobalAveragePool", "Identity",
    "InstanceNormalization", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid",
    "Slice", "Split", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
))
# fmt: on
"""Operators that lose nothing to speak of in half: they move, compare or scale values, or sum in float32 inside."""


def at_precision(
    model: bytes, precision: str, *, keep: Collection[str] = (), ranges: Mapping[str, float] | None = None
) -> bytes:
    """An ONNX model in float32 -> the same in one of `PRECISIONS`.

    keep    names of products (`lowered_products`) that stay float32
    ranges  of int8: what `quantisation.ranges` found
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"at_precision: precision {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return model
    if unknown := sorted(set(keep) - set(lowered_products(model, precision))):
        raise ArgumentError(f"at_precision: the model has no product {unknown[0]!r} that {precision} would change")
    given = _loaded(model)
    if precision == "int8":
        if ranges is None:
            raise ArgumentError("at_precision: int8 needs the ranges of its activations; found none")
        quantise(given, keep, ranges)
    half = _HALVES[precision]
    if given.opset_import[0].version < half.opset:
        given = onnx.version_converter.convert_version(given, half.opset)
    _Rewriter(given.graph, half, keep).rewrite()
    onnx.checker.check_model(given)
    return bytes(given.SerializeToString())


def _loaded(model: bytes) -> ModelProto:
    """With a name for each node, which ONNX does not ask for: its own where it has one of its own, or its output's."""
    given = onnx.load_from_string(model)
    seen: set[str] = set()
    for node in given.graph.node:
        if not node.name or node.name in seen:
            node.name = node.output[0]
        seen.add(node.name)
    return given


def lowered_products(model: bytes, precision: str) -> list[str]:
    """Names of the products that a precision changes, in the order in which they are computed."""
    if precision == "fp32":
        return []
    given = _loaded(model)
    quantised = {node.name for node in quantisable(given)} if precision == "int8" else set()
    halves = _HALVES[precision].products
    return [node.name for node in given.graph.node if node.op_type in halves or node.name in quantised]


class _Rewriter:
    """Chooses the nodes that become half, and puts casts where the two types meet."""

    def __init__(self, graph: GraphProto, half: _Half, keep: Collection[str]) -> None:
        self.graph, self.half, self.products, self.keep = graph, half.type, half.products, keep
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.floats = _float_values(graph)
        self.maker = {name: node for node in graph.node for name in node.output}
        self.halves = self._chosen()
        self.casts: dict[tuple[str, int], str] = {}
        self.added: dict[str, TensorProto] = {}

    def _chosen(self) -> set[str]:
        """Names of the nodes that become half."""
        chosen: set[str] = set()
        for node in self.graph.node:
            made = [self.maker[name] for name in self._typed(node) if name in self.maker]
            between = node.op_type in _BETWEEN and bool(made) and all(one.name in chosen for one in made)
            outside = [name for name in self._typed(node) if name not in self.maker and name not in self.weights]
            if node.name not in self.keep and (node.op_type in self.products or (between and not outside)):
                chosen.add(node.name)
        users: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
        for node in reversed(self.graph.node):  # what no product follows
            after = [user for name in node.output for user in users.get(name, [])]
            if node.op_type not in self.products and not any(user.name in chosen for user in after):
                chosen.discard(node.name)
        return chosen

    def _typed(self, node: NodeProto) -> list[str]:
        """The inputs that share the type of its output, as far as they are float32 now."""
        return [name for name, shared in _shared_inputs(node) if shared and name in self.floats]

    def rewrite(self) -> None:
        """In place."""
        outputs = {value.name for value in self.graph.output}
        nodes: list[NodeProto] = []
        for node in list(self.graph.node):
            half = node.name in self.halves
            for i, (name, shared) in enumerate(_shared_inputs(node)):
                if name in self.floats:
                    node.input[i] = self._as(name, half and shared, nodes)
            nodes.append(node)
            for i, name in enumerate(node.output):
                if half and name in outputs:
                    node.output[i] = f"{name}_half"
                    self.casts[name, self.half] = node.output[i]
                    nodes.append(
                        helper.make_node("Cast", [node.output[i]], [name], f"{name}_float", to=TensorProto.FLOAT)
                    )
        used = {name for node in nodes for name in node.input}
        tensors = [t for t in (*self.graph.initializer, *self.added.values()) if t.name in used]
        for field, values in (("node", nodes), ("initializer", tensors), ("value_info", [])):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(values)

    def _as(self, name: str, half: bool, nodes: list[NodeProto]) -> str:
        """The name under which a value exists in the wanted type; casts and rounded weights are made once."""
        made = self.maker.get(name)
        is_half = made is not None and made.name in self.halves
        wanted = self.half if half else TensorProto.FLOAT
        if (name, wanted) in self.casts:
            return self.casts[name, wanted]
        if half == is_half or (not half and name in {value.name for value in self.graph.output}):
            return name
        cast = f"{name}_{'half' if half else 'float'}"
        if name in self.weights:
            self.added[cast] = _rounded(self.weights[name], cast, self.half)
        else:
            nodes.append(helper.make_node("Cast", [name], [cast], cast, to=wanted))
        self.casts[name, wanted] = cast
        return cast


def _float_values(graph: GraphProto) -> set[str]:
    """Names of float32 values; every value of an exported graph has a type."""
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(graph), data_prop=False).graph
    typed: Iterable[Any] = (*inferred.value_info, *graph.value_info, *graph.input, *graph.output)
    found = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _shared_inputs(node: NodeProto) -> Iterator[tuple[str, bool]]:
    """Each input, and whether its type is that of the first output, as the operator's schema says; unknown ones: no."""
    if not onnx.defs.has(node.op_type, node.domain):
        yield from ((name, False) for name in node.input)
        return
    schema = onnx.defs.get_schema(node.op_type, node.domain)
    kind = schema.outputs[0].type_str
    for i, name in enumerate(node.input):
        yield name, schema.inputs[min(i, len(schema.inputs) - 1)].type_str == kind


def _rounded(tensor: TensorProto, name: str, half: int) -> TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(half))
    if not np.isfinite(values.astype(np.float32)).all():
        raise ArgumentError(
            f"at_precision: weight {tensor.name} has values beyond the range of {values.dtype}; keep its layer in "
            "float32, or take bf16"
        )
    return numpy_helper.from_array(values, name)
