"""ONNX Runtime, on the CPU or, where its CUDA provider is installed, on an NVIDIA GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from normscan.deploy.bundle import Bundle
from normscan.deploy.engines.names import check_names
from normscan.errors import BundleError, UsageError

if TYPE_CHECKING:
    from normscan.train.folder import Run

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntimeEngine:
    """`model.onnx` of a bundle in an inference session."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int, gpu: int | None = None) -> None:
        """`gpu`: the number of a CUDA device; None: the CPU."""
        self._model = bundle.folder / "model.onnx"
        self.device = "cpu" if gpu is None else f"cuda:{gpu}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning workers take the cores from the native scorer and from decoding, which run between two calls.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # By itself it multiplies float32 as tf32, of 10 bits, on GPUs that can.
        providers: list[Any] = [_CPU] if gpu is None else [(_CUDA, {"device_id": gpu, "use_tf32": 0}), _CPU]
        version = onnxruntime.__version__
        try:
            # From the bytes that were hashed: a path would be read again, and let the model name files beside it.
            self._session = onnxruntime.InferenceSession(bundle.model, options, providers=providers)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base of their own
            raise BundleError(f"{self._model} cannot be opened by ONNX Runtime {version}: {error}") from error
        if gpu is not None and _CUDA not in self._session.get_providers():  # it falls back, and says so in its log
            raise UsageError(
                f"--device cuda:{gpu}: ONNX Runtime {version} cannot use it (no driver, no such device, or CUDA and "
                "cuDNN of other versions than it was built for); use --device cpu"
            )
        self._outputs = [output.name for output in self._session.get_outputs()]
        check_names(bundle, [i.name for i in self._session.get_inputs()], self._outputs)

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs."""
        try:
            found = self._session.run(None, {"x": x})
        except Exception as error:  # as above; a model whose input does not fit the spec ends here
            raise BundleError(f"{self._model} cannot run on x {list(x.shape)} float32: {error}") from error
        return dict(zip(self._outputs, found, strict=True))

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, device."""
        return {"engine": self.name, "version": onnxruntime.__version__, "device": self.device}


def open_engine(source: Bundle | Run, *, device: str, threads: int) -> OnnxRuntimeEngine:
    """Open a bundle on cpu or cuda:N; auto is the first GPU where this ONNX Runtime is built for one, else the CPU."""
    if not isinstance(source, Bundle):
        raise UsageError(f"the onnxruntime engine opens a bundle, and {source.folder} is a run folder; export it first")
    kind, _, index = device.partition(":")
    if device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise UsageError(f"--device {device!r} is not known; expected auto, cpu or cuda:N")
    built = _CUDA in onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and not built):
        return OnnxRuntimeEngine(source, threads)
    if not built:
        raise UsageError(
            f"--device {device}: ONNX Runtime {onnxruntime.__version__} is built without CUDA; install onnxruntime-gpu "
            "in place of onnxruntime, or use --device cpu"
        )
    return OnnxRuntimeEngine(source, threads, int(index or 0))
