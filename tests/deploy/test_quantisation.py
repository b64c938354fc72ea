"""Ranges that 8 bits are given: by entropy, clipped where that keeps more of the distribution."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from normscan.deploy.quantisation import BINS, LEVELS, Histogram, quantisable, ranges
from normscan.errors import ArgumentError


def slow_range(values: np.ndarray, end: float) -> float:
    """The method as it is told (Migacz 2017), by loops over bins of equal width up to `end`."""
    counts = np.histogram(np.abs(values), BINS, (0.0, end))[0].astype(float)
    counts[0] = counts[1]
    best, chosen = np.inf, BINS
    for last in range(LEVELS + 1, BINS + 1, 8):
        p = counts[:last].copy()
        p[-1] += counts[last:].sum()
        q = np.zeros(last)
        edges = [int(k * last / (LEVELS + 1)) for k in range(LEVELS + 2)]
        for low, high in pairwise(edges):
            filled = [i for i in range(low, high) if counts[i] > 0]
            for i in filled:
                q[i] = counts[low:high].sum() / len(filled)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * np.log(a / max(b, 1e-9)) for a, b in zip(p, q, strict=True) if a > 0)
        if divergence < best:
            best, chosen = divergence, last
    return end * chosen / BINS


def test_it_is_the_published_method() -> None:
    values = np.random.default_rng(0).laplace(size=20_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    assert histogram.range() == pytest.approx(slow_range(values, float(np.abs(values).max())), rel=1e-6)


def test_a_rare_value_far_out_is_clipped_and_common_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=100_000).astype(np.float32)
    rare = np.append(common, np.float32(100))
    for values, low, high in ((common, 2.5, 5.0), (rare, 2.5, 20.0), (rng.uniform(-1, 1, 100_000), 0.95, 1.0)):
        histogram = Histogram()
        histogram.add(values.astype(np.float32))
        assert low < histogram.range() <= high


@given(st.lists(st.floats(2**-10, 2**20, width=32), min_size=1, max_size=30), st.integers(1, 5))
def test_every_value_is_counted_however_they_come(values: list[float], parts: int) -> None:
    histogram = Histogram()
    for part in np.array_split(np.array(values, np.float32), parts):
        histogram.add(part)
    assert histogram.counts.sum() == len(values)
    assert max(values) <= histogram.end < 2 * max(values)
    assert 0 < histogram.range() <= histogram.end


def test_what_is_always_zero_has_a_range() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(10, np.float32))
    assert histogram.range() == 1.0


def test_values_that_are_not_finite_are_told() -> None:
    with pytest.raises(ArgumentError, match="not finite on the calibration pictures"):
        Histogram().add(np.array([1.0, np.nan], np.float32))


def test_ranges_of_a_network(exported: Path) -> None:
    """A value each for what enters convolutions; the input's is what pixels can be, not what training pictures are."""
    model = (exported / "model.onnx").read_bytes()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (4, *input_shape(model))).astype(np.float32)
    found = ranges(model, [x[:2], x[2:]], inputs=2.64)
    assert set(found) == {node.input[0] for node in quantisable(onnx.load_from_string(model))}
    assert found["x"] == 2.64
    assert all(value > 0 for value in found.values())
    assert ranges(model, [x])["x"] <= 0.5
    with pytest.raises(ArgumentError, match="int8 needs calibration pictures, found none"):
        ranges(model, [])


def input_shape(model: bytes) -> list[int]:
    return [dim.dim_value for dim in onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim[1:]]


def test_a_weight_that_is_computed_is_not_quantised(exported: Path) -> None:
    proto = onnx.load_from_string((exported / "model.onnx").read_bytes())
    (first, *_) = quantisable(proto)
    before = len(quantisable(proto))
    made = onnx.helper.make_node("Identity", [first.input[1]], ["computed"])
    first.input[1] = "computed"
    proto.graph.node.insert(0, made)
    assert len(quantisable(proto)) == before - 1
    assert all(isinstance(numpy_helper.to_array(t), np.ndarray) for t in proto.graph.initializer)
