"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the engine beside the bundle, built where there is none that fits."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
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
    """An engine on a GPU. It runs on memory of the host; `execution` is for those who have theirs on the device."""

    def __init__(self, bundle: Bundle, library: str, found: EngineFile, place: Gpu) -> None:
        self.name, self.device, self.place = library, f"cuda:{place.index}", place
        self.batch = found.fingerprint.batch
        """Least, best, most."""
        self._version = found.fingerprint.version
        self._module = tensorrt.library(library)
        self._log = tensorrt.log_of(self._module)()
        self._runtime = self._module.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(found.engine)
        self._refused = (
            f"{library} {self._version} cannot run the engine of {bundle.folder} on {place.name} ({place.architecture})"
        )
        if self._engine is None:
            raise self._refusal()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == self._module.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in inputs]
        check_names(bundle, inputs, self.outputs)
        self._buffers, self._execution = self.buffers(), self.execution()
        self._lock = threading.Lock()

    def _refusal(self) -> DeviceError:
        return DeviceError(
            f"{self._refused}: {self._log.said() or 'it gave no reason'}; build it again with normscan export BUNDLE "
            f"--engine {self.name} --gpu current --force"
        )

    def buffers(self) -> Buffers:
        """Memory and a stream of its device."""
        return Buffers(runtime(self.name))

    def execution(self) -> Execution:
        """A context of its own."""
        context = self._engine.create_execution_context()
        if context is None:
            raise self._refusal()
        return Execution(f"{self.name} {self._version}", context, self.outputs)

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs; more than the engine's largest batch goes in parts."""
        x = np.ascontiguousarray(x, np.float32)
        most = self.batch[2]
        with self._lock:
            check(self._buffers.cuda, "cudaSetDevice", self.place.index)  # of this thread
            parts = [self._run(x[i : i + most]) for i in range(0, len(x), most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.outputs}

    def _run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        count, least = len(x), self.batch[0]
        if count < least:  # a picture's neighbours do not change its score
            x = np.concatenate([x, np.repeat(x[-1:], least - count, axis=0)])
        made = {name: np.empty(shape, np.float32) for name, shape in self._execution.shapes(x.shape).items()}
        addresses = {name: self._buffers.address(name, values.nbytes) for name, values in made.items()}
        addresses["x"] = self._buffers.upload("x", x)
        self._execution.enqueue(int(self._buffers.stream), addresses)
        for name, values in made.items():
            self._buffers.download(name, values)
        self._buffers.wait()
        return {name: values[:count] for name, values in made.items()}

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, device and its driver."""
        told = {"engine": self.name, "version": self._version, "device": self.device}
        return {**told, "gpu": self.place.identity}


class Execution:
    """A context of an engine: for one caller, on one stream, at a time."""

    def __init__(self, name: str, context: Any, outputs: Sequence[str]) -> None:
        self._name, self._context, self._outputs = name, context, outputs
        self._shape: tuple[int, ...] = ()

    def shapes(self, x: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Of the outputs for x of that shape, which is what `enqueue` takes from now on."""
        if not self._context.set_input_shape("x", x):
            raise DeviceError(f"{self._name}: the engine does not take x {list(x)} float32")
        self._shape = x
        return {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}

    def enqueue(self, stream: int, addresses: Mapping[str, int]) -> None:
        """Put the network on a stream; addresses of x and of all outputs on the device, float32."""
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(stream):
            raise DeviceError(f"{self._name} failed on x {list(self._shape)}; look at the GPU with nvidia-smi")


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
