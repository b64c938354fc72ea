"""What engines need of CUDA's runtime: the GPUs here, memory, copies and a stream; no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from normscan.errors import DeviceError, MissingExtraError, UsageError


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    index: int
    name: str
    architecture: str
    """As in "sm89"."""
    driver: str

    @property
    def identity(self) -> str:
        """What an engine that was built on it depends on."""
        return f"{self.name} {self.architecture}, driver {self.driver}"


def runtime(extra: str) -> Any:
    """CUDA's runtime as a module; where its package is missing, `extra` brings it."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        raise MissingExtraError("cuda-bindings", extra)
    return import_module("cuda.bindings.runtime")


def gpu(cuda: Any, index: int | None, asked: str) -> Gpu:
    """The GPU of that number, which becomes the current one; None: the current one. A `UsageError` that begins with
    `asked` where it is not there.
    """
    error, count = cuda.cudaGetDeviceCount()
    if int(error) or not count:
        raise UsageError(f"{asked}: found no GPU here ({error.name})")
    if index is None:
        index = int(check(cuda, "cudaGetDevice"))
    if index >= count:
        raise UsageError(f"{asked}: there are {count} GPUs, counted from 0")
    check(cuda, "cudaSetDevice", index)
    properties = check(cuda, "cudaGetDeviceProperties", index)
    driver = check(cuda, "cudaDriverGetVersion")
    name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
    return Gpu(index, name, f"sm{properties.major}{properties.minor}", str(driver))


def check(cuda: Any, function: str, *arguments: Any) -> Any:
    """Call a function of the runtime; what it returns besides its code, or a `DeviceError` that names both."""
    error, *found = getattr(cuda, function)(*arguments)
    if int(error):
        raise DeviceError(f"{function}: {error.name}; look at the GPU with nvidia-smi")
    return found[0] if found else None


class Buffers:
    """Memory by name, of the current device and of the host beside it, and a stream; all is freed with the object."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.moves = 0
        """How often memory that was given out had to move, since more of it was asked for."""
        self._held: dict[str, tuple[int, int]] = {}
        self._pinned: dict[str, tuple[int, int]] = {}
        self.stream = check(cuda, "cudaStreamCreateWithFlags", cuda.cudaStreamNonBlocking)

    def address(self, name: str, size: int) -> int:
        """Of at least `size` bytes on the device."""
        return self._room(self._held, name, size, "cudaMalloc", "cudaFree")

    def pinned(self, name: str, size: int) -> np.ndarray:
        """At least `size` bytes of the host that the device copies by itself, as uint8 [size]."""
        there = self._room(self._pinned, name, size, "cudaMallocHost", "cudaFreeHost")
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(there))

    def _room(self, held: dict[str, tuple[int, int]], name: str, size: int, allocate: str, free: str) -> int:
        there, room = held.get(name, (0, 0))
        if there and room >= size:
            return there
        if there:
            self.moves += 1
            check(self.cuda, free, there)
            del held[name]
        size = max(size, 1)
        try:
            held[name] = int(check(self.cuda, allocate, size)), size
        except DeviceError as error:
            raise DeviceError(
                f"{name}: {size / (1 << 20):.1f} MiB are not to be had; use a smaller batch ({error})"
            ) from None
        return held[name][0]

    def upload(self, name: str, values: np.ndarray) -> int:
        """Copy a contiguous array to the device; its address there."""
        there = self.address(name, values.nbytes)
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(self.cuda, "cudaMemcpyAsync", there, values.ctypes.data, values.nbytes, kind, self.stream)
        return there

    def download(self, name: str, values: np.ndarray) -> None:
        """Copy from the device into a contiguous array, which is ready after `wait`."""
        there, _ = self._held[name]
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(self.cuda, "cudaMemcpyAsync", values.ctypes.data, there, values.nbytes, kind, self.stream)

    def copy_up(self, name: str, size: int) -> None:
        """Pinned memory to the device's of the same name."""
        self.upload(name, self.pinned(name, size))

    def copy_down(self, name: str, size: int) -> None:
        """The device's memory to the pinned one of the same name."""
        self.download(name, self.pinned(name, size))

    def wait(self) -> None:
        """Until the stream is done."""
        check(self.cuda, "cudaStreamSynchronize", self.stream)

    def __del__(self) -> None:
        for free, memory in (("cudaFree", "_held"), ("cudaFreeHost", "_pinned")):
            for there, _ in getattr(self, memory, {}).values():  # whatever CUDA answers now: the process may be ending
                getattr(self.cuda, free)(there)
        if hasattr(self, "stream"):
            self.cuda.cudaStreamDestroy(self.stream)


class Graph:
    """What was put on a stream once, to be put there again at the cost of one call."""

    def __init__(self, cuda: Any, executable: Any) -> None:
        self._cuda, self._executable = cuda, executable

    @classmethod
    def capture(cls, buffers: Buffers, enqueue: Callable[[], None]) -> Graph:
        """Record what a function puts on the buffers' stream, without doing it; a `DeviceError` where it cannot."""
        cuda = buffers.cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(cuda, "cudaStreamBeginCapture", buffers.stream, mode)
        try:
            enqueue()
        except BaseException:
            cuda.cudaStreamEndCapture(buffers.stream)
            cuda.cudaGetLastError()  # what broke the capture is told, and forgotten
            raise
        graph = check(cuda, "cudaStreamEndCapture", buffers.stream)
        try:
            return cls(cuda, check(cuda, "cudaGraphInstantiate", graph, 0))
        finally:
            cuda.cudaGraphDestroy(graph)

    def launch(self, stream: Any) -> None:
        """Put it there."""
        check(self._cuda, "cudaGraphLaunch", self._executable, stream)

    def __del__(self) -> None:
        self._cuda.cudaGraphExecDestroy(self._executable)
