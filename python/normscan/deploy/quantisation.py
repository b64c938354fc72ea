"""Convolutions in 8 bits: what their inputs may be is found on pictures, and Q and DQ are written into the graph.

Activations are symmetric with one scale, weights have one for each output channel, biases stay float32: what TensorRT
takes (no zero points, no int32 behind a DQ), and OpenVINO and ONNX Runtime as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from normscan.errors import ArgumentError

LEVELS = 127
"""Of a magnitude: -128 stays unused, so that 0 is 0."""
BINS = 2048
CANDIDATE = 8
"""Bins between two ranges that are tried."""


def quantisable(model: ModelProto) -> list[NodeProto]:
    """Convolutions whose weights are constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants]


def ranges(model: bytes, batches: Iterable[np.ndarray], *, inputs: float | None = None) -> dict[str, float]:
    """What enters a convolution -> the magnitude that 127 shall stand for.

    The one whose 8 bits keep most of the distribution over the pictures: the least Kullback-Leibler divergence
    ("entropy"; Migacz, 8-bit inference with TensorRT, GTC 2017). What lies beyond it is clipped.

    batches  x [N,C,H,W] float32 of training normals; held one at a time, with its activations
    inputs   of x itself, where it is known: what is foreign may be brighter than every training picture
    """
    import onnxruntime

    given = onnx.load_from_string(model)
    names = list(dict.fromkeys(node.input[0] for node in quantisable(given)))
    known = {value.name for value in (*given.graph.input, *given.graph.output)}
    given.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(given.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [name for name in names if name != "x"]
    found = {name: Histogram() for name in names}
    pictures = 0
    for x in batches:
        pictures += len(x)
        if "x" in found:
            found["x"].add(x)
        for name, values in zip(wanted, session.run(wanted, {"x": x}) if wanted else [], strict=True):
            found[name].add(values)
    if not pictures:
        raise ArgumentError("int8 needs calibration pictures, found none")
    made = {name: histogram.range() for name, histogram in found.items()}
    return made | ({"x": inputs} if "x" in made and inputs is not None else {})


class Histogram:
    """Of magnitudes, in bins of equal width from 0 on; the width doubles when a larger one comes."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.end = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape, float32; those that are not finite are an `ArgumentError`."""
        magnitudes = np.abs(values).ravel()
        largest = float(magnitudes.max(initial=0.0))
        if not np.isfinite(largest):
            raise ArgumentError("int8: the network gives values that are not finite on the calibration pictures")
        self.end = self.end or largest
        while largest > self.end:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.end *= 2
        if self.end:
            self.counts += np.histogram(magnitudes, BINS, (0.0, self.end))[0]

    def range(self) -> float:
        """The end of the bin at which to clip; 1 where all that was counted is 0."""
        if not self.end:
            return 1.0
        counts = self.counts.astype(float)
        counts[0] = counts[1]  # what is 0, as behind a ReLU, is exact in every range
        ends = range(LEVELS + 1, BINS + 1, CANDIDATE)
        return self.end * min(ends, key=lambda end: _divergence(counts, end)) / BINS


def _divergence(counts: np.ndarray, end: int) -> float:
    """Kullback-Leibler, of the values clipped at a bin, from the same in 128 steps, each even over its filled bins."""
    clipped = counts[:end].copy()
    clipped[-1] += counts[end:].sum()
    edges = np.linspace(0, end, LEVELS + 2).astype(int)
    filled = counts[:end] > 0
    sums, fills = (np.add.reduceat(values, edges[:-1]) for values in (counts[:end], filled.astype(float)))
    steps = np.repeat(sums / np.maximum(fills, 1), np.diff(edges)) * filled
    p, q = clipped / clipped.sum(), steps / max(steps.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


def quantise(model: ModelProto, keep: Collection[str], ranges: Mapping[str, float]) -> None:
    """Put the inputs of convolutions through Q and DQ, in place; those that are named stay float32.

    The convolutions alone take a value in 8 bits: another user, or an output of the graph, has it as it was.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    chosen = {node.name for node in quantisable(model) if node.name not in keep}
    added: dict[str, list[TensorProto]] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.name in chosen:
            value, weight = node.input[:2]
            if value not in added:
                added[value] = _tensors(value, np.array(ranges[value] / LEVELS, np.float32))
                nodes.append(_node("QuantizeLinear", value, value))
                nodes.append(_node("DequantizeLinear", f"{value}_quantised", value))
            if weight not in added:
                added[weight] = _quantised(weights[weight])
                nodes.append(_node("DequantizeLinear", f"{weight}_quantised", weight, axis=0))
            node.input[0], node.input[1] = f"{value}_dequantised", f"{weight}_dequantised"
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    tensors = [t for t in (*graph.initializer, *(t for made in added.values() for t in made)) if t.name in used]
    for field, values in (("node", nodes), ("initializer", tensors)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _node(operator: str, given: str, name: str, **attributes: Any) -> NodeProto:
    made = f"{name}_{'quantised' if operator == 'QuantizeLinear' else 'dequantised'}"
    return helper.make_node(operator, [given, f"{name}_scale", f"{name}_zero"], [made], made, **attributes)


def _quantised(weight: TensorProto) -> list[TensorProto]:
    """[M,...] float32: the same in int8, and a scale and zero point for each of M."""
    values = numpy_helper.to_array(weight)
    largest = np.abs(values).reshape(len(values), -1).max(axis=1)
    scale = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    steps = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))).clip(-LEVELS, LEVELS).astype(np.int8)
    return [numpy_helper.from_array(steps, f"{weight.name}_quantised"), *_tensors(weight.name, scale)]


def _tensors(name: str, scale: np.ndarray) -> list[TensorProto]:
    zero = np.zeros(np.shape(scale), np.int8)
    return [numpy_helper.from_array(scale, f"{name}_scale"), numpy_helper.from_array(zero, f"{name}_zero")]
