"""Bundles that are damaged on purpose, and whole again by their hashes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from normscan.deploy.bundle import write_manifest


def seal(bundle: Path) -> None:
    """Give an altered bundle its right hashes again."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {k: v for k, v in manifest.items() if k not in ("files", "sha256", "schema")})


def nudge_weights(model: bytes, factor: float) -> bytes:
    """The model with every convolution's weights a little larger."""
    proto = onnx.load_model_from_string(model)
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(value * np.float32(factor), tensor.name))
    data: bytes = proto.SerializeToString()
    return data
