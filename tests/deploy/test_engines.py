"""Engines: the same network, named outputs, and no device but the one that was asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest

from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import available_engines, open_engine
from normscan.deploy.engines import onnxruntime as onnxruntime_module
from normscan.deploy.session import load
from normscan.errors import BundleError, UsageError

BUNDLE_ENGINES = ("onnxruntime", "openvino")
every_engine = pytest.mark.parametrize("name", BUNDLE_ENGINES)


def test_what_is_here() -> None:
    assert available_engines() == dict.fromkeys((*BUNDLE_ENGINES, "torch"), True)


@every_engine
def test_outputs_are_float32_and_as_recorded(exported: Path, name: str) -> None:
    bundle = Bundle.open(exported)
    engine, golden = open_engine(name, bundle, threads=1), bundle.golden()
    found = engine.run(golden["x"])
    assert set(found) == set(bundle.manifest["outputs"])
    for output, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, golden[f"output.{output}"], atol=1e-4 * golden[f"output.{output}"].std())
    assert {"engine": name, "device": "cpu"}.items() <= engine.fingerprint().items()


@every_engine
def test_outputs_are_the_caller_s(exported: Path, name: str) -> None:
    """A second picture must not change what was given for the first."""
    bundle = Bundle.open(exported)
    engine, x = open_engine(name, bundle), bundle.golden()["x"]
    first = engine.run(x[:1])
    before = {output: value.copy() for output, value in first.items()}
    engine.run(x[1:2])
    assert all(np.array_equal(value, before[output]) for output, value in first.items())


@every_engine
def test_an_engine_serves_several_threads(exported: Path, name: str) -> None:
    bundle = Bundle.open(exported)
    engine, x = open_engine(name, bundle, threads=1), bundle.golden()["x"]
    alone = [engine.run(one[None])["latent"] for one in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda one: engine.run(one[None])["latent"], x))
            for a, b in zip(alone, together, strict=True):
                np.testing.assert_array_equal(a, b)


@every_engine
def test_a_session_on_any_engine_decides_the_same(exported: Path, skin: Path, name: str) -> None:
    paths = sorted((skin / "test").rglob("*.png"))
    first, other = load(exported), load(exported, engine=name)
    for a, b in zip(first.score(paths), other.score(paths), strict=True):
        assert abs(a.score - b.score) < 1e-3 * first.spread
        assert a.decision == b.decision


@every_engine
def test_an_input_that_does_not_fit_is_told(exported: Path, name: str) -> None:
    engine = open_engine(name, Bundle.open(exported))
    with pytest.raises(BundleError, match=r"model.onnx cannot run on x \[1, 3, 5, 5\] float32"):
        engine.run(np.zeros((1, 3, 5, 5), np.float32))


@every_engine
@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_model_that_is_none_is_told(exported: Path, name: str, content: bytes) -> None:
    bundle = Bundle.open(exported)
    with pytest.raises(BundleError, match=r"model.onnx cannot be opened by (ONNX Runtime|OpenVINO) "):
        open_engine(name, replace(bundle, files={**bundle.files, "model.onnx": content}))


@every_engine
def test_other_outputs_than_the_manifest_s_are_told(exported: Path, name: str) -> None:
    bundle = Bundle.open(exported)
    with pytest.raises(BundleError, match=r"outputs \[.*\], expected \['x'\] and \['other'\]; export the bundle again"):
        open_engine(name, replace(bundle, manifest={**bundle.manifest, "outputs": ["other"]}))


@every_engine
def test_a_run_is_not_for_them(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"the {name} engine opens a bundle, and .* is a run folder; export it first"):
        load(run, engine=name)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_cannot_be_used_is_an_error(exported: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}: ONNX Runtime .* is built without CUDA; .*--device cpu"):
        load(exported, device=device)
    with pytest.raises(UsageError, match=f"--device {device}: the openvino engine runs on the CPU"):
        load(exported, engine="openvino", device=device)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_unknown_devices_are_told(exported: Path, device: str) -> None:
    with pytest.raises(UsageError, match="is not known; expected auto, cpu or cuda:N"):
        load(exported, device=device)


class Provided:
    """An inference session of an ONNX Runtime with CUDA, on whichever providers are left to it."""

    def __init__(self, left: list[str], made: list[Any]) -> None:
        self._left, self._made = left, made

    def __call__(self, model: bytes, options: Any, providers: list[Any]) -> Any:
        self._made.append(providers)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        left = self._left

        class Session:
            def get_providers(self) -> list[str]:
                return left

            def __getattr__(self, name: str) -> Any:
                return getattr(session, name)

        return Session()


@pytest.mark.parametrize(("device", "gpu"), [("auto", 0), ("cuda", 0), ("cuda:2", 2)])
def test_cuda_is_used_where_it_is_there(exported: Path, device: str, gpu: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where ONNX Runtime falls back to the CPU by itself, that is an error."""
    both, made = ["CUDAExecutionProvider", "CPUExecutionProvider"], []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    fake = Fake(both, made)
    monkeypatch.setattr(onnxruntime_module, "onnxruntime", fake)
    engine = open_engine("onnxruntime", Bundle.open(exported), device=device)
    assert engine.device == f"cuda:{gpu}"
    assert made[0][0] == ("CUDAExecutionProvider", {"device_id": gpu, "use_tf32": 0})
    fake.InferenceSession = Provided(["CPUExecutionProvider"], made)
    with pytest.raises(UsageError, match=f"--device cuda:{gpu}: ONNX Runtime .* cannot use it"):
        open_engine("onnxruntime", Bundle.open(exported), device=device)
    assert open_engine("onnxruntime", Bundle.open(exported), device="cpu").device == "cpu"


class Fake:
    """The module, with another session."""

    def __init__(self, left: list[str], made: list[Any]) -> None:
        self.InferenceSession = Provided(left, made)

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)


def test_openvino_computes_in_float32(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it takes bfloat16 where the processor multiplies it: an error of 0.1 to 0.4 of the spread."""
    asked: list[dict[str, Any]] = []
    compile_model = openvino.Core.compile_model

    def watched(core: Any, model: Any, device: str, options: dict[str, Any]) -> Any:
        asked.append(options)
        return compile_model(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    open_engine("openvino", Bundle.open(exported), threads=1)
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "f32"
    assert asked[0]["INFERENCE_NUM_THREADS"] == 1
