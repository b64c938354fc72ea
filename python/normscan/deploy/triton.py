"""A model repository for the Triton Inference Server: the bundle's network, served in batches.

    REPOSITORY/<name>/config.pbtxt
    REPOSITORY/<name>/1/model.onnx      or model.plan, an engine of TensorRT

Triton runs the network alone. What comes before (`prepare`) and after (scores, maps, decisions) is the bundle's, and a
client's: its hash stands among the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile
from normscan.deploy.tensorrt import check_batch
from normscan.errors import UsageError
from normscan.files import temporary_folder, write_bytes

DELAY_MICROSECONDS = 2000
"""A picture waits so long for others to fill a batch."""


def write_repository(
    folder: Path,
    bundle: Bundle,
    *,
    name: str | None = None,
    batch: tuple[int, int, int] = (1, 8, 32),
    engine: EngineFile | None = None,
    gpu: bool = False,
    force: bool = False,
) -> Path:
    """Write `folder/<name>` (default: the bundle's name) whole or not at all, and return it.

    engine  of TensorRT, served in the ONNX file's place; one of TensorRT-RTX is a `UsageError`, for Triton has no
            backend that loads it
    gpu     whether the ONNX file is served on GPUs or on the CPU
    """
    name = name or bundle.folder.name.removesuffix(".normscan")
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise UsageError(f"triton: {name!r} cannot name a model; expected letters, digits, -, _ and .")
    if engine is not None and engine.fingerprint.library != "tensorrt":
        raise UsageError(
            f"triton: no backend loads engines of {engine.fingerprint.library}; serve the ONNX file, or an engine of "
            "tensorrt"
        )
    if engine is None:
        check_batch(batch)
        if bundle.precision == "bf16" and not gpu:
            raise UsageError(
                "triton: ONNX Runtime has no bf16 convolutions on the CPU; serve it on a GPU (--gpu current)"
            )
    target = folder / name
    with temporary_folder(target, force=force, ours=_is_model) as temporary:
        if engine is None:
            write_bytes(temporary / "1" / "model.onnx", bundle.model)
        else:
            write_bytes(temporary / "1" / "model.plan", engine.engine)
        text = _config(name, bundle, batch if engine is None else engine.fingerprint.batch, engine, gpu)
        write_bytes(temporary / "config.pbtxt", text.encode())
    return target


def _is_model(folder: Path) -> bool:
    """A model that was written here may be replaced."""
    config = folder / "config.pbtxt"
    return config.is_file() and '"normscan_bundle"' in config.read_text("utf-8")


def _config(name: str, bundle: Bundle, batch: tuple[int, int, int], engine: EngineFile | None, gpu: bool) -> str:
    """config.pbtxt, in protobuf's text format (triton-inference-server/common: model_config.proto)."""
    _, usual, most = batch
    size, golden = bundle.spec.input, bundle.golden()
    outputs = {output: list(golden[f"output.{output}"].shape[1:]) for output in bundle.manifest["outputs"]}
    on_gpu = gpu or engine is not None
    return "\n".join(
        [
            f"name: {json.dumps(name)}",
            f"backend: {json.dumps('onnxruntime' if engine is None else 'tensorrt')}",
            f"max_batch_size: {most}",
            *_values("input", {"x": [size.channels, size.height, size.width]}),
            *_values("output", outputs),
            f"dynamic_batching {{ preferred_batch_size: [ {', '.join(str(n) for n in sorted({usual, most}))} ]",
            f"  max_queue_delay_microseconds: {DELAY_MICROSECONDS} }}",
            f"instance_group [ {{ kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} count: 1 }} ]",
            *_parameters({"normscan_bundle": bundle.manifest["sha256"], "normscan_precision": bundle.precision}),
            "",
        ]
    )


def _values(field: str, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Inputs or outputs; the batch comes first and is not written."""
    found = [
        f"  {{ name: {json.dumps(name)} data_type: TYPE_FP32 dims: [ {', '.join(str(n) for n in shape)} ] }}"
        for name, shape in shapes.items()
    ]
    return [f"{field} [", *(f"{line}," for line in found[:-1]), found[-1], "]"]


def _parameters(given: Mapping[str, str]) -> list[str]:
    return [
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
        for key, value in given.items()
    ]
