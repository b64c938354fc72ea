"""What is kept of measurements: the machine, and a record a contender, in results/<machine>.json.

torch is imported where it is used, as in `timing`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import Measured, rounded

from normscan import _native
from normscan.files import write_json

MACHINE = f"{platform.machine()}-{os.cpu_count()}cpu"
RESULTS = Path(__file__).parent / "results" / f"{MACHINE}.json"


def header(measured: Sequence[Measured]) -> dict[str, Any]:
    """The machine that the records were taken on; its rates are medians over the cases."""
    import torch

    device = measured[0].case.device
    return {
        **(of_processor() if device == "cpu" else of_gpu()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "copy_gbps": rounded(float(np.median([m.copy_gbps for m in measured]))),
        **matrix_rates(measured),
    }


def matrix_rates(measured: Sequence[Measured]) -> dict[str, float]:
    """Of the matrix product: "matrix_gflops" in float32, "matrix_gflops_<dtype>" in others."""
    rates: dict[str, list[float]] = {}
    for m in measured:
        name = "matrix_gflops" if m.case.dtype == "float32" else f"matrix_gflops_{m.case.dtype}"
        rates.setdefault(name, []).append(m.matrix_gflops)
    return {name: rounded(float(np.median(found))) for name, found in rates.items()}


def of_processor() -> dict[str, Any]:
    """A CPU, and how the native core was built for it."""
    return {
        "processor": processor(),
        "threads": _native.threads(),
        "simd": _native.simd_level(),
        "compiler": _native.build_info()["compiler"],
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "cuda": "not measured",
    }


def of_gpu() -> dict[str, Any]:
    """torch's current GPU; what only `nvidia-smi` knows is null without it."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": rounded(properties.total_memory / 2**30),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **smi(str(properties.uuid), "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem"),
    }


def smi(uuid: str, *names: str) -> dict[str, str | None]:
    """What `nvidia-smi` says of one GPU. Clocks are those of this moment: asked right after the last case."""
    command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        found: list[str | None] = [value.strip() for value in answer.strip().split(",")]
        return dict(zip(names, found, strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):  # no such program, no such GPU, another answer
        return dict.fromkeys(names)


def processor() -> str:
    """As the system calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def results_file(device: str) -> Path:
    """Of this machine, or of the kind of its GPU: results/nvidia-h200.json."""
    if device == "cpu":
        return RESULTS
    import torch

    slug = re.sub("[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return RESULTS.with_name(f"{slug}.json")


def stored(path: Path = RESULTS) -> dict[str, Any]:
    """What a results file holds."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {"machine": path.stem}


def store(path: Path = RESULTS, **parts: Any) -> None:
    """Replace these keys of a results file, keep the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**stored(path), **parts})


def store_records(measured: Sequence[Measured], path: Path) -> None:
    """Replace the records of the ops that were measured, and what is known of the machine."""
    ops, before = {m.case.op for m in measured}, stored(path)
    kept = [r for r in before.get("records", []) if r["op"] not in ops]
    hardware = {**before.get("hardware", {}), **header(measured)}
    store(path, hardware=hardware, records=[*kept, *(r for m in measured for r in m.records())])
