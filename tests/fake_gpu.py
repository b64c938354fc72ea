"""A GPU that is not there: CUDA's runtime over host memory, and a TensorRT whose contexts run ONNX Runtime.

It checks what a real one would not forgive: addresses that were never given out, sizes beyond them, shapes outside the
profile, outputs that are read before they were made.
"""
# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from normscan import _native
from normscan.deploy import tensorrt
from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile, Fingerprint, cache_folder
from normscan.deploy.engines import tensorrt as engine_module
from normscan.errors import DeviceError


class Code:
    """An error code of CUDA's runtime."""

    def __init__(self, name: str, code: int) -> None:
        self.name, self._code = name, code

    def __int__(self) -> int:
        return self._code


OK = Code("cudaSuccess", 0)


class FakeCuda:
    """The functions that the engine calls. While a stream is captured, what is put on it is kept, and not done."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking = 1

    def __init__(self, gpus: int = 1) -> None:
        self.gpus, self.current = gpus, 0
        self.memory: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.launched = 0
        self.library: Any = None
        self.fails: set[str] = set()
        self._numbers = count(77)
        self._captured: list[Callable[[], object]] | None = None

    @property
    def capturing(self) -> bool:
        """Whether what is put on a stream is only recorded."""
        return self._captured is not None

    def do(self, work: Callable[[], object]) -> None:
        """Something on a stream."""
        if self._captured is None:
            work()
        else:
            self._captured.append(work)

    def _answer(self, name: str, *found: Any) -> tuple[Any, ...]:
        return (Code("cudaErrorMemoryAllocation", 2), None) if name in self.fails else (OK, *found)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return OK, self.gpus

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return OK, self.current

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        assert index < self.gpus
        self.current = index
        return (OK,)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Any, ...]:
        return OK, SimpleNamespace(name=b"NVIDIA Fake", major=8, minor=9 - index)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return OK, 13000

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        self.streams.add(stream := next(self._numbers))
        return OK, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.streams.remove(stream)
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        assert self._captured is None
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert stream in self.streams
        assert mode == 1
        self._captured = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        self.graphs[graph := next(self._numbers)] = self._captured or []
        self._captured = None
        return self._answer("cudaStreamEndCapture", graph)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (OK,)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        self.graphs[made := next(self._numbers)] = self.graphs[graph]
        return OK, made

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        self.launched += 1
        for work in self.graphs[graph]:
            work()
        return (OK,)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        held = ctypes.create_string_buffer(size)
        where = ctypes.addressof(held)
        self.host[where] = held
        return self._answer("cudaMallocHost", where)

    def cudaFreeHost(self, where: int) -> tuple[Any, ...]:
        del self.host[where]
        return (OK,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        held = ctypes.create_string_buffer(size)
        where = ctypes.addressof(held)
        self.memory[where] = held
        return self._answer("cudaMalloc", where)

    def cudaFree(self, where: int) -> tuple[Any, ...]:
        del self.memory[where]
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        there = to if kind == 1 else source
        assert size <= len(self.memory[there])
        self.do(lambda: ctypes.memmove(to, source, size))
        return (OK,)

    def array(self, where: int, shape: tuple[int, ...]) -> np.ndarray:
        """What lies on the device."""
        count = int(np.prod(shape))
        assert 4 * count <= len(self.memory[where])
        return np.frombuffer(self.memory[where], np.float32, count).reshape(shape)


def installed(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with two GPUs, and a TensorRT-RTX whose engines take 2 to 4 pictures."""
    cuda = FakeCuda(gpus=2)
    cuda.library = FakeTensorRT(cuda, least=2, most=4)
    monkeypatch.setattr(tensorrt, "library", lambda _: cuda.library)
    for module in (tensorrt, engine_module):
        monkeypatch.setattr(module, "runtime", lambda _: cuda)
    monkeypatch.setattr(tensorrt, "_build", lambda bundle, *_: bundle.model)
    return cuda


def placed(bundle: Path, *gpus: str, version: str = "1.7.fake", content: bytes | None = None) -> Path:
    """An engine file in the bundle's cache, as if it had been built for these GPUs."""
    opened = Bundle.open(bundle)
    shape = tuple(opened.golden()["x"].shape[1:])
    known = Fingerprint(opened.manifest["sha256"], "tensorrt-rtx", version, gpus, (2, 3, 4), shape)
    path = cache_folder(opened) / "fp32-tensorrt-rtx-x.engine"
    EngineFile(known, opened.model if content is None else content).write(path)
    return path


class FakeTensorRT:
    """A library whose "engine" is the ONNX file, for a batch of `least` to `most`."""

    __version__ = "1.7.fake"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")

    class IBuilderConfig:
        """Names architectures, as TensorRT-RTX does."""

        num_compute_capabilities = 1

    class ILogger:
        """What a logger derives from."""

        Severity = SimpleNamespace(ERROR=1)

    def __init__(self, cuda: FakeCuda, least: int, most: int) -> None:
        self.cuda, self.least, self.most = cuda, least, most
        self.batches: list[int] = []

    def Runtime(self, log: Any) -> Any:
        """Deserialises."""
        return SimpleNamespace(deserialize_cuda_engine=lambda blob: self._engine(blob, log))

    def _engine(self, blob: bytes, log: Any) -> Any:
        if not blob.startswith(b"\x08"):  # no ONNX file
            log.log(1, "Serialization error: magic tag does not match")
            return None
        import onnxruntime  # not where the emulated kernels run under ThreadSanitizer, which looks into it

        session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
        inputs = [value.name for value in session.get_inputs()]
        names = inputs + [value.name for value in session.get_outputs()]
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda i: names[i],
            get_tensor_mode=lambda name: "in" if name in inputs else "out",
            create_execution_context=lambda: FakeContext(self, session),
        )


class FakeContext:
    """Runs ONNX Runtime on what lies at the given addresses."""

    def __init__(self, library: FakeTensorRT, session: Any) -> None:
        self._library, self._session = library, session
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return name == "x" and self._library.least <= shape[0] <= self._library.most

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._made()[name].shape

    def set_tensor_address(self, name: str, where: int) -> None:
        assert where in self._library.cuda.memory
        self._addresses[name] = where

    def execute_async_v3(self, stream: int) -> bool:
        assert stream in self._library.cuda.streams
        self._library.batches.append(self._shape[0])
        cuda, shape, addresses = self._library.cuda, self._shape, dict(self._addresses)
        if "execute" in cuda.fails:
            return False

        def work() -> None:
            for name, value in self._made(cuda.array(addresses["x"], shape).copy()).items():
                cuda.array(addresses[name], value.shape)[...] = value

        cuda.do(work)
        return True

    def _made(self, x: np.ndarray | None = None) -> dict[str, np.ndarray]:
        given = np.zeros(self._shape, np.float32) if x is None else x
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, {"x": given}), strict=True))


class FakeCore:
    """The module `normscan._cuda`, of whose streams the CPU's core does the work."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def device_count(self) -> int:
        return self.cuda.gpus

    def why_none(self) -> str:
        return "" if self.cuda.gpus else "no driver"

    def View(self, address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Memory that was given out, and not beyond it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert any(where <= address and address + size <= where + len(m) for where, m in self.cuda.memory.items())
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)

    def Scorer(self, spec: str, stats: dict[str, np.ndarray]) -> Any:
        held = {name: np.ascontiguousarray(value, np.float32) for name, value in stats.items()}
        return SimpleNamespace(
            native=_native.Scorer(_native.ScoringSpec(spec), stats), held=held, statistics=lambda: held
        )

    def Stream(self, handle: int, *, device: int) -> FakeStream:
        assert handle in self.cuda.streams
        assert device == self.cuda.current
        return FakeStream(self.cuda)


class FakeStream:
    """What is called on it is done, or captured."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def prepare(self, image: np.ndarray, out: np.ndarray, **how: Any) -> None:
        self._refuse("prepare")
        self._cuda.do(lambda: _native.prepare(image, out, **how))

    def restore(self, map: np.ndarray, out: np.ndarray, **how: Any) -> None:  # noqa: A002
        self._cuda.do(lambda: _native.restore(map, out, **how))

    def score_workspace(self, scorer: Any, outputs: dict[str, np.ndarray]) -> int:
        return 64 * len(outputs)

    def score(
        self,
        scorer: Any,
        statistics: dict[str, np.ndarray],
        outputs: dict[str, np.ndarray],
        maps: np.ndarray,
        terms: np.ndarray,
        scores: np.ndarray,
        *,
        workspace: np.ndarray,
    ) -> None:
        assert workspace.size == self.score_workspace(scorer, outputs)

        def work() -> None:
            for name, value in scorer.held.items():
                np.testing.assert_array_equal(statistics[name], value)
            maps[...], terms[...], scores[...] = scorer.native.score(outputs)

        self._cuda.do(work)

    def _refuse(self, what: str) -> None:
        if f"capture {what}" in self._cuda.fails and self._cuda.capturing:
            raise DeviceError(f"{what}: CUDA says: operation not permitted when stream is capturing")
