"""What engines need of CUDA's runtime: the GPUs here, memory, copies and a stream; no torch."""

from __future__ import annotations

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
    """Memory of the current device by name, on one stream; it grows and is freed with the object."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self._held: dict[str, tuple[int, int]] = {}
        self.stream = check(cuda, "cudaStreamCreate")

    def address(self, name: str, size: int) -> int:
        """Of at least `size` bytes."""
        held, room = self._held.get(name, (0, 0))
        if room < size:
            if held:
                check(self.cuda, "cudaFree", held)
                del self._held[name]
            held = int(check(self.cuda, "cudaMalloc", size))
            self._held[name] = (held, size)
        return held

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

    def wait(self) -> None:
        """Until the stream is done."""
        check(self.cuda, "cudaStreamSynchronize", self.stream)

    def __del__(self) -> None:
        held = getattr(self, "_held", {})
        for there, _ in held.values():  # whatever CUDA answers now: the process may be ending
            self.cuda.cudaFree(there)
        if hasattr(self, "stream"):
            self.cuda.cudaStreamDestroy(self.stream)
