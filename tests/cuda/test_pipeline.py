"""A session's hops on the GPU, with the kernels that a GPU has: uploaded, prepared, scored, restored, downloaded.

Emulated, they are put on the streams of a runtime that stands in for CUDA's, and captured in its graphs.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arrays import uniform
from fake_gpu import FakeCuda
from normscan.deploy import gpu_pipeline
from normscan.deploy.engines.device import Buffers
from normscan.deploy.gpu_pipeline import GpuPipeline
from normscan.deploy.hops import Hops
from normscan.deploy.pipeline import HostPipeline, Prepared
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from specs import SPECS, outputs_of, stats_of

NAMES = ("ocad", "stfpm", "positions and a vector", "a stain and its red pixels")


class Network:
    """Fixed outputs, times how bright each picture is; on the host, or where its addresses lie."""

    name, device, batch = "tensorrt-rtx", "cuda:0", (2, 3, 4)
    place = SimpleNamespace(index=0)

    def __init__(self, outputs: dict[str, np.ndarray]) -> None:
        self.outputs = {name: values[:1] for name, values in outputs.items()}
        self.cuda = FakeCuda()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        bright = 0.5 + x.mean(axis=(1, 2, 3))
        return {name: values * bright.reshape(-1, *[1] * (values.ndim - 1)) for name, values in self.outputs.items()}

    def buffers(self) -> Buffers:
        return Buffers(self.cuda)

    def execution(self) -> Network:
        return self

    def shapes(self, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        self.shape = x
        return {name: value.shape for name, value in self.run(np.zeros(x, np.float32)).items()}

    def enqueue(self, stream: int, addresses: dict[str, int]) -> None:
        assert stream in self.cuda.streams
        shape, where = self.shape, dict(addresses)

        def work() -> None:
            for name, value in self.run(self.cuda.array(where["x"], shape)).items():
                self.cuda.array(where[name], value.shape)[...] = value

        self.cuda.do(work)


class Core:
    """The emulated module, of whose streams the fake runtime knows when they are captured."""

    def __init__(self, module: Any, cuda: FakeCuda) -> None:
        self._module, self._cuda = module, cuda
        self.View, self.Scorer = module.View, module.Scorer

    def Stream(self, handle: int, *, device: int) -> Any:  # noqa: N802
        assert handle in self._cuda.streams
        real, cuda = self._module.Stream(0, device=device), self._cuda

        class Recorded:
            score_workspace = real.score_workspace

            def __getattr__(self, op: str) -> Any:
                return lambda *tensors, **options: cuda.do(lambda: getattr(real, op)(*tensors, **options))

        return Recorded()


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_all_sizes_are_scored_as_on_the_host(gpu: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not gpu.emulated:
        pytest.skip("on a GPU the pipeline has a real engine: tests/cuda/test_session.py")
    scorer = Scorer(ScoringSpec.from_json(json.dumps(SPECS[name])), stats_of())
    network = Network(outputs_of(1))
    monkeypatch.setattr(gpu_pipeline, "_core", lambda: Core(gpu.module, network.cuda))
    here, there = HostPipeline(network, scorer), GpuPipeline(network, scorer)  # type: ignore[arg-type]
    for count in (1, 3, 3, 3, 6):
        given = [uniform(30 + 5 * (i % 3), 40, 3, seed=i + count) for i in range(count)]
        expected = here.submit([here.prepare(p) for p in given], Hops())()
        batch: list[Prepared] = [there.prepare(p) for p in given]
        found = there.submit(batch, Hops())()
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
        np.testing.assert_allclose(found.terms, expected.terms, rtol=1e-4)
        for one, other in zip(found.maps, expected.maps, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())
    assert network.cuda.launched > 1
