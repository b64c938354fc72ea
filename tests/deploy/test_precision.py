"""What becomes half or int8 in a graph, what does not, and that it still computes the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from normscan.deploy.precision import PRODUCTS, at_precision, lowered_products
from normscan.deploy.quantisation import ranges
from normscan.errors import ArgumentError

RNG = np.random.default_rng(0)
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def weight(name: str, *shape: int, scale: float = 0.3) -> TensorProto:
    return numpy_helper.from_array((RNG.normal(size=shape) * scale).astype(np.float32), name)


def model(
    nodes: list[tuple[str, str, str, dict[str, object]]], weights: list[TensorProto], outputs: list[str]
) -> bytes:
    """Nodes as (operator, inputs, output, attributes), each named after its output; x is [N,3,8,8]."""
    made = [helper.make_node(op, ins.split(), [out], name=out, **attributes) for op, ins, out, attributes in nodes]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, None, None]) for name in outputs]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    graph = helper.make_graph(made, "g", [given], info, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


SAME = {"pads": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def restoring() -> bytes:
    """Two convolutions with a ReLU between, one more, and what they make is added to x and clipped."""
    nodes = [
        ("Conv", "x w1 b1", "c1", SAME),
        ("Relu", "c1", "r1", {}),
        ("Conv", "r1 w2", "c2", SAME),
        ("Softmax", "c2", "soft", {"axis": 1}),
        ("Conv", "soft w3", "c3", SAME),
        ("Add", "x c3", "sum", {}),
        ("Clip", "sum low high", "restored", {}),
        ("Identity", "x", "image", {}),
    ]
    ends = [numpy_helper.from_array(np.float32(v), name) for v, name in ((-1, "low"), (1, "high"))]
    weights = [weight("w1", 4, 3, 3, 3), weight("b1", 4), weight("w2", 4, 4, 3, 3), weight("w3", 3, 4, 3, 3), *ends]
    return model(nodes, weights, ["restored", "image"])


def types(content: bytes) -> dict[str, int]:
    """The type of each node's first input that is a value or a weight, by the node's name."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.input)}
    kinds |= {t.name: t.data_type for t in inferred.graph.initializer}
    return {node.name: kinds[node.input[0]] for node in inferred.graph.node}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_and_what_lies_between_them_are_half(restoring: bytes, precision: str) -> None:
    half, whole = TYPES[precision], TensorProto.FLOAT
    found = types(at_precision(restoring, precision))
    wanted = {"c1": half, "r1": half, "c2": half, "soft": whole, "c3": half, "sum": whole, "restored": whole}
    assert {name: found[name] for name in wanted} == wanted
    proto = onnx.load_from_string(at_precision(restoring, precision))
    ends = (*proto.graph.input, *proto.graph.output)
    assert [v.type.tensor_type.elem_type for v in ends] == [whole] * 3
    assert {t.name: t.data_type for t in proto.graph.initializer} == {
        "w1_half": half, "b1_half": half, "w2_half": half, "w3_half": half, "low": whole, "high": whole
    }  # fmt: skip


def test_what_is_kept_stays(restoring: bytes) -> None:
    found = types(at_precision(restoring, "fp16", keep=["c2"]))
    assert (found["c1"], found["c2"], found["c3"]) == (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT16)
    assert found["r1"] == TensorProto.FLOAT16 or found["r1"] == TensorProto.FLOAT
    assert lowered_products(restoring, "fp16") == ["c1", "c2", "c3"]
    with pytest.raises(ArgumentError, match="no product 'r1' that fp16 would change"):
        at_precision(restoring, "fp16", keep=["r1"])


def test_a_value_that_is_output_and_input_is_both(restoring: bytes) -> None:
    """As a teacher's features: float32 to score, half for the next convolution."""
    nodes = [("Conv", "x w1", "c1", SAME), ("Relu", "c1", "f1", {}), ("Conv", "f1 w2", "f2", SAME)]
    features = model(nodes, [weight("w1", 4, 3, 3, 3), weight("w2", 4, 4, 3, 3)], ["f1", "f2"])
    changed = at_precision(features, "fp16")
    found = types(changed)
    assert found["c1"] == found["f2"] == TensorProto.FLOAT16
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    for a, b in zip(run(features, x), run(changed, x), strict=True):
        np.testing.assert_allclose(a, b, atol=4e-3 * np.abs(a).max())
        assert b.dtype == np.float32


def run(content: bytes, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return list(onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {"x": x}))


@pytest.mark.parametrize(("precision", "error"), [("fp16", 2e-3), ("int8", 5e-2)])
def test_it_computes_the_same(restoring: bytes, precision: str, error: float) -> None:
    x = RNG.uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    changed = at_precision(restoring, precision, ranges=ranges(restoring, [x]))
    before, after = run(restoring, x), run(changed, x)
    assert 0 < np.abs(before[0] - after[0]).max() < error
    np.testing.assert_array_equal(before[1], after[1])  # the image itself is never rounded


def test_int8_never_rounds_what_is_compared() -> None:
    """Features that are output and go into the next convolution: that alone takes them in 8 bits."""
    nodes = [
        ("Conv", "x w1", "c1", SAME),
        ("Relu", "c1", "f1", {}),
        ("Conv", "f1 w2", "c2", SAME),
        ("Add", "f1 c2", "f2", {}),
    ]
    features = model(nodes, [weight("w1", 4, 3, 3, 3), weight("w2", 4, 4, 3, 3)], ["f1", "f2"])
    x = RNG.normal(size=(4, 3, 8, 8)).astype(np.float32)
    graph = onnx.load_from_string(at_precision(features, "int8", ranges=ranges(features, [x]))).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    assert (maker["f1"], maker["f2"]) == ("Relu", "Add")
    (add,) = (node for node in graph.node if node.op_type == "Add")
    assert add.input[0] == "f1"
    assert [maker[node.input[0]] for node in graph.node if node.op_type == "Conv"] == ["DequantizeLinear"] * 2


def test_int8_is_symmetric_by_channel_and_leaves_biases(restoring: bytes) -> None:
    """What TensorRT takes: zero points of 0, no int32 behind a DequantizeLinear."""
    x = RNG.uniform(-1, 1, (4, 3, 8, 8)).astype(np.float32)
    proto = onnx.load_from_string(at_precision(restoring, "int8", ranges=ranges(restoring, [x]), keep=["c2"]))
    tensors = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    dequantised = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    products = {n.name: n for n in proto.graph.node if n.op_type in PRODUCTS}
    for name in ("c1", "c3"):
        assert all(source in dequantised for source in products[name].input[:2]), name
        scale = tensors[dequantised[products[name].input[1]].input[1]]
        assert scale.shape == (len(tensors[dequantised[products[name].input[1]].input[0]]),)
    assert not any(source in dequantised for source in products["c2"].input)
    assert tensors[products["c1"].input[2]].dtype == np.float32
    assert all(not tensors[n.input[2]].any() for n in dequantised.values())
    assert all(tensors[n.input[0]].dtype == np.int8 for n in dequantised.values() if n.input[0] in tensors)


def test_int8_without_ranges_is_told(restoring: bytes) -> None:
    with pytest.raises(ArgumentError, match="int8 needs the ranges of its activations"):
        at_precision(restoring, "int8")


def test_nodes_without_names_are_told_apart(restoring: bytes) -> None:
    """ONNX asks for no name, and none is unique: what is half does not depend on them."""
    proto = onnx.load_from_string(restoring)
    for node in proto.graph.node:
        node.name = ""
    unnamed = at_precision(proto.SerializeToString(), "fp16")
    assert types(unnamed) == types(at_precision(restoring, "fp16"))
    assert lowered_products(proto.SerializeToString(), "fp16") == ["c1", "c2", "c3"]


def test_weights_beyond_half_are_told() -> None:
    large = model([("Conv", "x w", "y", SAME)], [weight("w", 3, 3, 3, 3, scale=1e6)], ["y"])
    with pytest.raises(
        ArgumentError, match="weight w has values beyond the range of float16; keep its layer in float32, or take bf16"
    ):
        at_precision(large, "fp16")
    at_precision(large, "bf16")


def test_float32_is_the_same_bytes_and_others_are_told(restoring: bytes) -> None:
    assert at_precision(restoring, "fp32") == restoring
    with pytest.raises(ArgumentError, match="precision 'fp8', expected one of fp32, fp16, bf16, int8"):
        at_precision(restoring, "fp8")


def test_no_transposed_convolution_in_bfloat16() -> None:
    """TensorRT-RTX cannot build one."""
    nodes = [("Conv", "x w1", "c", SAME), ("ConvTranspose", "c w2", "y", {"strides": [2, 2]})]
    up = model(nodes, [weight("w1", 4, 3, 3, 3), weight("w2", 4, 3, 2, 2)], ["y"])
    assert types(at_precision(up, "bf16"))["y"] == TensorProto.FLOAT
    assert types(at_precision(up, "fp16"))["y"] == TensorProto.FLOAT16


def test_an_exported_graph_loses_the_weights_that_it_no_longer_needs(exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    half = onnx.load(io.BytesIO(at_precision(content, "fp16"))).graph
    used = {name for node in half.node for name in node.input}
    assert {t.name for t in half.initializer} <= used
    size = sum(len(t.raw_data) for t in half.initializer)
    assert size < 0.6 * sum(len(t.raw_data) for t in onnx.load_from_string(content).graph.initializer)
