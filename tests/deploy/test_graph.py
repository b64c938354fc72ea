"""Distances in an exported graph against the reference, in a real ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
from torch import Tensor, nn

from arrays import normal
from normscan import ops
from normscan.deploy.export import export, onnx_bytes
from normscan.deploy.graph import distances_in_graph
from normscan.errors import UsageError
from normscan.ops.autograd.distance_onnx import METRICS
from normscan.scoring.spec import Input, ScoringSpec, Term
from reference.distance import distance
from tolerances import assert_close


class Outputs(NamedTuple):
    map: Tensor


class Pair(nn.Module):
    """x [N,2,C,H,W] -> how far one is from the other."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(ops.distance_map(x[:, 0], x[:, 1], metric=self.metric))


@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_is_the_reference(metric: str) -> None:
    a, b = normal(2, 5, 6, 7, seed=1), normal(2, 5, 6, 7, seed=2)
    a[1, :, 2, 3] = 0  # a vector without a direction
    b[1] = 0
    model = onnx_bytes(Pair(metric).eval(), np.stack([a, b], axis=1))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.stack([a, b], axis=1)})
    assert found.shape == (2, 6, 7)
    assert_close(found, distance(a.astype(np.float64), b.astype(np.float64), metric=metric), "distance")


def test_windows_stay_outside() -> None:
    spec = ScoringSpec("test", Input(16, 16), (Term("distance", ("a", "b"), metric="ssim"),))
    with pytest.raises(UsageError, match="test has no distance of l1, l2, cosine, relative_l1"):
        distances_in_graph(nn.Identity(), spec)


def test_an_unknown_place_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'engine', expected native or graph"):
        export(run, tmp_path / "x.normscan", distances="engine")
