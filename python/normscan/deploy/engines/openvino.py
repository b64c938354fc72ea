"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from normscan.deploy.bundle import Bundle
from normscan.deploy.engines.names import check_names
from normscan.errors import BundleError, UsageError

if TYPE_CHECKING:
    from normscan.train.folder import Run


class OpenVinoEngine:
    """`model.onnx` of a bundle, compiled."""

    name = "openvino"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._model = bundle.folder / "model.onnx"
        options: dict[str, Any] = {
            # By itself it multiplies in bfloat16 where the processor can; what is lowered is said by the graph.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(bundle.model), "CPU", options)
        except RuntimeError as error:
            version = openvino.get_version()
            raise BundleError(f"{self._model} cannot be opened by OpenVINO {version}: {error}") from error
        self._outputs = [output.get_any_name() for output in self._compiled.outputs]
        check_names(bundle, [i.get_any_name() for i in self._compiled.inputs], self._outputs)
        self._requests = threading.local()  # a request serves one caller at a time

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs."""
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        try:
            found = request.infer({"x": np.ascontiguousarray(x)}, share_inputs=True)
        except RuntimeError as error:
            raise BundleError(f"{self._model} cannot run on x {list(x.shape)} float32: {error}") from error
        return {name: found[i] for i, name in enumerate(self._outputs)}

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, device."""
        return {"engine": self.name, "version": openvino.get_version(), "device": self.device}


def open_engine(source: Bundle | Run, *, device: str, threads: int) -> OpenVinoEngine:
    """Open a bundle; it runs on the CPU alone."""
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: the openvino engine runs on the CPU; use --device cpu")
    if not isinstance(source, Bundle):
        raise UsageError(f"the openvino engine opens a bundle, and {source.folder} is a run folder; export it first")
    return OpenVinoEngine(source, threads)
