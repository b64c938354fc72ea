"""The engine on a GPU, as far as a GPU that is not there can tell: addresses, batches, which engine file fits."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import fake_gpu
from fake_gpu import FakeCuda
from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile, cache_folder
from normscan.deploy.engines import open_engine
from normscan.deploy.session import load
from normscan.errors import BundleError, DeviceError, OutputError, UsageError

HERE = "NVIDIA Fake sm89, driver 13000"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with two GPUs, and a TensorRT-RTX whose engines take 2 to 4 pictures."""
    return fake_gpu.installed(monkeypatch)


placed = fake_gpu.placed


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 11])
def test_any_number_of_pictures_goes_through(bundle: Path, cuda: FakeCuda, count: int) -> None:
    """More than the largest batch in parts, fewer than the least filled up; each as if it were alone."""
    placed(bundle, "sm86", "sm89")
    opened = Bundle.open(bundle)
    x = np.random.default_rng(0).normal(size=(count, 3, 16, 16)).astype(np.float32)
    found = open_engine("tensorrt-rtx", opened).run(x)
    expected = open_engine("onnxruntime", opened).run(x)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)
    batches = cuda.library.batches  # type: ignore[attr-defined]
    assert all(2 <= n <= 4 for n in batches)
    assert len(batches) == -(-count // 4)


def test_a_session_scores_through_it(bundle: Path, skin: Path, cuda: FakeCuda) -> None:
    placed(bundle, "sm89")
    session = load(bundle, engine="tensorrt-rtx", device="cuda:0")
    paths = sorted((skin / "test").rglob("*.png"))
    for ours, theirs in zip(session.score(paths), load(bundle).score(paths), strict=True):
        assert abs(ours.score - theirs.score) < 1e-3 * session.spread
    told = session.engine.fingerprint()
    assert told == {"engine": "tensorrt-rtx", "version": "1.7.fake", "device": "cuda:0", "gpu": HERE}


def test_memory_and_stream_are_given_back(bundle: Path, cuda: FakeCuda) -> None:
    placed(bundle, "sm89")
    engine = open_engine("tensorrt-rtx", Bundle.open(bundle))
    for count in (1, 4, 2):
        engine.run(np.zeros((count, 3, 16, 16), np.float32))
    names = 1 + len(Bundle.open(bundle).manifest["outputs"])
    assert len(cuda.memory) == names  # grown, not added
    assert len(cuda.streams) == 1
    del engine
    gc.collect()
    assert (cuda.memory, cuda.streams) == ({}, set())


@pytest.mark.parametrize(
    ("gpus", "version", "built"),
    [
        (("sm80", "sm89"), "1.7.fake", False),
        ((HERE,), "1.7.fake", False),
        (("sm86",), "1.7.fake", True),
        (("NVIDIA Fake sm89, driver 12000",), "1.7.fake", True),
        (("sm89",), "1.6.0", True),
    ],
)
def test_an_engine_is_taken_where_it_fits_and_built_where_none_does(
    bundle: Path, cuda: FakeCuda, gpus: tuple[str, ...], version: str, built: bool
) -> None:
    placed(bundle, *gpus, version=version)
    open_engine("tensorrt-rtx", Bundle.open(bundle))
    current = cache_folder(Bundle.open(bundle)) / "fp32-tensorrt-rtx-current.engine"
    assert current.exists() == built
    if built:
        assert EngineFile.read(current).fingerprint.gpus == (HERE,)


def test_another_gpu_is_taken_by_its_number(bundle: Path, cuda: FakeCuda) -> None:
    engine = open_engine("tensorrt-rtx", Bundle.open(bundle), device="cuda:1")
    assert engine.fingerprint()["gpu"] == "NVIDIA Fake sm88, driver 13000"
    cuda.current = 0  # as another thread of the process would have it
    engine.run(np.zeros((2, 3, 16, 16), np.float32))
    assert cuda.current == 1


def test_an_engine_that_cannot_be_kept_is_used(
    bundle: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: EngineFile, path: Path) -> None:
        raise OutputError(f"{path}: Read-only file system")

    monkeypatch.setattr(EngineFile, "write", full)
    engine = open_engine("tensorrt-rtx", Bundle.open(bundle))
    assert engine.run(np.zeros((2, 3, 16, 16), np.float32))
    assert "Read-only file system; the engine is used, and built again the next time" in capsys.readouterr().err


def test_a_damaged_engine_is_passed_over(bundle: Path, cuda: FakeCuda, capsys: pytest.CaptureFixture[str]) -> None:
    path = placed(bundle, "sm89")
    path.write_bytes(path.read_bytes()[:-1])
    open_engine("tensorrt-rtx", Bundle.open(bundle))
    assert "its header says" in capsys.readouterr().err


def test_what_the_gpu_refuses_is_told(bundle: Path, cuda: FakeCuda) -> None:
    placed(bundle, "sm89", content=b"not for this version")
    with pytest.raises(DeviceError, match=r"cannot run the engine .* on NVIDIA Fake \(sm89\): .*magic tag .*--force"):
        open_engine("tensorrt-rtx", Bundle.open(bundle))
    placed(bundle, "sm89")
    engine = open_engine("tensorrt-rtx", Bundle.open(bundle))
    cuda.fails.add("execute")
    with pytest.raises(DeviceError, match=r"tensorrt-rtx 1.7.fake failed on x \[2, 3, 16, 16\]"):
        engine.run(np.zeros((2, 3, 16, 16), np.float32))
    cuda.fails.add("cudaMalloc")
    with pytest.raises(DeviceError, match="cudaMalloc: cudaErrorMemoryAllocation; look at the GPU with nvidia-smi"):
        engine.run(np.zeros((4, 3, 16, 16), np.float32))


def test_devices_that_are_not_there_are_told(bundle: Path, run: Path, cuda: FakeCuda) -> None:
    opened = Bundle.open(bundle)
    for device in ("cpu", "cuda:x", "gpu"):
        with pytest.raises(UsageError, match=f"--device {device}: the tensorrt-rtx engine runs on NVIDIA GPUs"):
            open_engine("tensorrt-rtx", opened, device=device)
    with pytest.raises(UsageError, match="--engine tensorrt-rtx: there are 2 GPUs, counted from 0"):
        open_engine("tensorrt-rtx", opened, device="cuda:2")
    cuda.gpus = 0
    with pytest.raises(UsageError, match=r"--engine tensorrt-rtx: found no GPU here"):
        open_engine("tensorrt-rtx", opened)
    with pytest.raises(UsageError, match=r"opens a bundle, and .* is a run folder"):
        load(run, engine="tensorrt-rtx")


def test_an_engine_of_another_network_is_told(bundle: Path, cuda: FakeCuda) -> None:
    placed(bundle, "sm89")
    opened = Bundle.open(bundle)
    opened.manifest["outputs"] = ["other"]
    with pytest.raises(BundleError, match="export the bundle again"):
        open_engine("tensorrt-rtx", opened)
