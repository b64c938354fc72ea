"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the engine beside the bundle, built where there is none that fits."""

from __future__ import annotations

import threading
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from normscan.deploy import tensorrt
from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile
from normscan.deploy.engines.device import Buffers, Gpu, check, gpu, runtime
from normscan.deploy.engines.names import check_names
from normscan.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from normscan.train.folder import Run


class TensorRtEngine:
    """An engine in an execution context, with device memory of its own."""

    def __init__(self, bundle: Bundle, library: str, found: EngineFile, place: Gpu) -> None:
        self.name, self.device = library, f"cuda:{place.index}"
        self._place, self._version = place, found.fingerprint.version
        self._least, _, self._most = found.fingerprint.batch
        module = tensorrt.library(library)
        log = tensorrt.log_of(module)()
        self._buffers = Buffers(runtime(library))
        self._runtime = module.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(found.engine)
        self._context = None if self._engine is None else self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(
                f"{library} {self._version} cannot run the engine of {bundle.folder} on {place.name} "
                f"({place.architecture}): {log.said() or 'it gave no reason'}; build it again with normscan export "
                f"BUNDLE --engine {library} --gpu current --force"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in inputs]
        check_names(bundle, inputs, self._outputs)
        self._lock = threading.Lock()

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs; more than the engine's largest batch goes in parts."""
        x = np.ascontiguousarray(x, np.float32)
        with self._lock:
            check(self._buffers.cuda, "cudaSetDevice", self._place.index)  # of this thread
            parts = [self._run(x[i : i + self._most]) for i in range(0, len(x), self._most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        count = len(x)
        if count < self._least:  # a picture's neighbours do not change its score
            x = np.concatenate([x, np.repeat(x[-1:], self._least - count, axis=0)])
        context: Any = self._context
        if not context.set_input_shape("x", x.shape):
            raise DeviceError(f"{self.name}: the engine does not take x {list(x.shape)} float32")
        context.set_tensor_address("x", self._buffers.upload("x", x))
        made = {name: np.empty(tuple(context.get_tensor_shape(name)), np.float32) for name in self._outputs}
        for name, values in made.items():
            context.set_tensor_address(name, self._buffers.address(name, 4 * prod(values.shape)))
        if not context.execute_async_v3(int(self._buffers.stream)):
            raise DeviceError(
                f"{self.name} {self._version} failed on x {list(x.shape)}; look at the GPU with nvidia-smi"
            )
        for name, values in made.items():
            self._buffers.download(name, values)
        self._buffers.wait()
        return {name: values[:count] for name, values in made.items()}

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, device and its driver."""
        told = {"engine": self.name, "version": self._version, "device": self.device}
        return {**told, "gpu": self._place.identity}


def open_engine(source: Bundle | Run, *, device: str, threads: int, name: str = "tensorrt") -> TensorRtEngine:
    """Open a bundle on a GPU (auto: the first); `threads` means nothing to it."""
    del threads
    kind, _, index = device.partition(":")
    if device != "auto" and (kind != "cuda" or not (index.isdecimal() or device == "cuda")):
        raise UsageError(f"--device {device}: the {name} engine runs on NVIDIA GPUs; use --device cuda:N, or auto")
    if not isinstance(source, Bundle):
        raise UsageError(f"the {name} engine opens a bundle, and {source.folder} is a run folder; export it first")
    tensorrt.library(name)  # what is missing is told first
    place = gpu(runtime(name), int(index or 0), f"--engine {name}")
    return TensorRtEngine(source, name, tensorrt.engine_on(source, name, place), place)
