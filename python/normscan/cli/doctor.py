"""`normscan doctor`: what is here, what is missing, and what it would give."""

from __future__ import annotations

import platform
from typing import Any

from normscan.cli.common import Json, emit

EXTRAS = {
    "torch": ("train", "training, and the torch engine"),
    "onnx": ("export", "export to ONNX"),
    "onnxscript": ("export", "export to ONNX"),
    "openvino": ("openvino", "the openvino engine, the faster one on most CPUs"),
    "tensorrt": ("tensorrt", "engines for the NVIDIA GPU here"),
    "tensorrt_rtx": ("tensorrt-rtx", "engines for NVIDIA workstation GPUs, here or elsewhere"),
    "openslide": ("wsi", "whole-slide pictures"),
}
PACKAGES = (
    *("numpy", "opencv-python-headless", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_cu13", "pydantic"),
    *("safetensors", "torch", "onnx", "onnxscript"),
)


def command(as_json: Json = False) -> None:
    """Print versions, devices, engines, SIMD level, CUDA module, families, and what each missing extra would give."""
    found = _look()
    lines = [
        f"normscan {found['normscan']}, Python {found['python']}, {found['platform']}",
        f"native core: SIMD {found['simd']} (can run {', '.join(found['simd_levels'])}), {found['threads']} threads",
        f"CUDA module: {found['cuda']}",
        "devices: " + ", ".join(found["devices"]),
        "engines: " + ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found["engines"].items()),
        "families: " + ", ".join(found["families"]),
        "generators: " + ", ".join(found["generators"]),
        *(f"  {name:<26}{number or 'not installed'}" for name, number in found["packages"].items()),
        *(f"missing: {name} ({gives}): pip install 'normscan[{extra}]'" for name, extra, gives in found["missing"]),
        "Research use only. Not a medical device.",
    ]
    emit(found, "\n".join(lines), as_json=as_json)


def _look() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from normscan import __version__, _native
    from normscan.deploy.engines import available_engines
    from normscan.errors import Error
    from normscan.families import names
    from normscan.generate import names as generators
    from normscan.ops.border import cuda_module

    def number(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    build = _native.build_info()
    try:
        cuda, devices = "", cuda_module("").device_count()
    except Error as error:
        cuda, devices = str(error).removeprefix(", but "), 0
    return {
        "normscan": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "simd": _native.simd_level(),
        "simd_levels": _native.simd_levels(),
        "threads": _native.threads(),
        "cuda": cuda or "usable",
        "build": build,
        "devices": ["cpu", *(f"cuda:{i}" for i in range(devices))],
        "engines": available_engines(),
        "families": names(),
        "generators": generators(),
        "packages": {name: number(name) for name in PACKAGES},
        "missing": [(name, *why) for name, why in EXTRAS.items() if find_spec(name) is None],
    }
