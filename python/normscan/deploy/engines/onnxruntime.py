"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from normscan.deploy.bundle import Bundle
from normscan.errors import BundleError, UsageError

if TYPE_CHECKING:
    from normscan.train.folder import Run


class OnnxRuntimeEngine:
    """`model.onnx` of a bundle in an inference session."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._model = bundle.folder / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning workers take the cores from the native scorer and from decoding, which run between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From the bytes that were hashed: a path would be read again, and let the model name files beside it.
            self._session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base of their own
            version = onnxruntime.__version__
            raise BundleError(f"{self._model} cannot be opened by ONNX Runtime {version}: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        inputs = [i.name for i in self._session.get_inputs()]
        if inputs != ["x"] or sorted(self._outputs) != sorted(bundle.manifest["outputs"]):
            raise BundleError(
                f"{self._model} has inputs {inputs} and outputs {self._outputs}, expected ['x'] and "
                f"{bundle.manifest['outputs']}; export the bundle again"
            )

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs."""
        try:
            found = self._session.run(None, {"x": x})
        except Exception as error:  # as above; a model whose input does not fit the spec ends here
            raise BundleError(f"{self._model} cannot run on x {list(x.shape)} float32: {error}") from error
        return dict(zip(self._outputs, found, strict=True))

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, provider."""
        return {"engine": self.name, "version": onnxruntime.__version__, "device": self.device}


def open_engine(source: Bundle | Run, *, device: str, threads: int) -> OnnxRuntimeEngine:
    """Open a bundle; `cuda` needs ONNX Runtime's CUDA provider, which this engine does not use yet: an error."""
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: the onnxruntime engine runs on the CPU; use --device cpu")
    if not isinstance(source, Bundle):
        raise UsageError(f"the onnxruntime engine opens a bundle, and {source.folder} is a run folder; export it first")
    return OnnxRuntimeEngine(source, threads)
