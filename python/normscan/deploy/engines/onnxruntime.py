"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from normscan.errors import BundleError, UsageError


class OnnxRuntimeEngine:
    """`model.onnx` of a bundle in an inference session."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning workers take the cores from the native scorer and from decoding, which run between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base of their own
            raise BundleError(f"{model} cannot be opened by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs."""
        return dict(zip(self._outputs, self._session.run(None, {"x": x}), strict=True))

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, provider."""
        return {"engine": self.name, "version": onnxruntime.__version__, "device": self.device}


def open_engine(folder: Path, *, device: str, threads: int) -> OnnxRuntimeEngine:
    """Open a bundle; `cuda` needs ONNX Runtime's CUDA provider, which this engine does not use yet: an error."""
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: the onnxruntime engine runs on the CPU; use --device cpu")
    return OnnxRuntimeEngine(folder / "model.onnx", threads)
