"""A GPU that is not there: CUDA's runtime over host memory, and a TensorRT whose contexts run ONNX Runtime.

It checks what a real one would not forgive: addresses that were never given out, sizes beyond them, shapes outside the
profile, outputs that are read before they were made.
"""
# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime


class Code:
    """An error code of CUDA's runtime."""

    def __init__(self, name: str, code: int) -> None:
        self.name, self._code = name, code

    def __int__(self) -> int:
        return self._code


OK = Code("cudaSuccess", 0)


class FakeCuda:
    """The functions that the engine calls."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, gpus: int = 1) -> None:
        self.gpus, self.current = gpus, 0
        self.memory: dict[int, Any] = {}
        self.streams = 0
        self.fails: set[str] = set()

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

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.streams += 1
        return OK, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        assert stream == 77
        self.streams -= 1
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert stream == 77
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
        assert stream == 77
        there = to if kind == 1 else source
        assert size <= len(self.memory[there])
        ctypes.memmove(to, source, size)
        return (OK,)

    def array(self, where: int, shape: tuple[int, ...]) -> np.ndarray:
        """What lies on the device."""
        count = int(np.prod(shape))
        assert 4 * count <= len(self.memory[where])
        return np.frombuffer(self.memory[where], np.float32, count).reshape(shape)


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
        assert stream == 77
        self._library.batches.append(self._shape[0])
        if "execute" in self._library.cuda.fails:
            return False
        x = self._library.cuda.array(self._addresses["x"], self._shape).copy()
        for name, value in self._made(x).items():
            self._library.cuda.array(self._addresses[name], value.shape)[...] = value
        return True

    def _made(self, x: np.ndarray | None = None) -> dict[str, np.ndarray]:
        given = np.zeros(self._shape, np.float32) if x is None else x
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, {"x": given}), strict=True))
