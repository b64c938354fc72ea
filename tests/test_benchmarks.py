"""The records of the benchmarks keep their form, and the GPU's cases run, small and on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
TEXTS = {"op", "case", "device", "dtype", "impl"}
FIGURES = {"ms", "ms_q1", "ms_q3", "gbps", "gflops"}
PEER = {"peer": str, "peer_ms": float, "ratio": float}
"""All null where a contender has no peer."""
EXTRAS = {"extra_mib", "of_copy"}


def check(record: dict[str, Any]) -> None:
    needed = TEXTS | FIGURES | set(PEER)
    assert needed <= set(record) <= needed | EXTRAS, sorted(set(record) ^ needed)
    assert all(isinstance(record[name], str) and record[name] for name in TEXTS), record
    assert all(isinstance(record[name], float) and record[name] >= 0 for name in FIGURES), record
    assert record["ms_q1"] <= record["ms"] <= record["ms_q3"], record
    assert record["device"] in {"cpu", "cuda"}, record
    kinds = dict.fromkeys(PEER, type(None)) if record["peer"] is None else PEER
    assert all(isinstance(record[name], kind) for name, kind in kinds.items()), record


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_records(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert found["machine"] == path.stem
    for record in found["records"]:
        check(record)
    assert {"copy_gbps", "matrix_gflops", "torch"} <= set(found["hardware"])
    keys = [tuple(r[name] for name in ("op", "case", "dtype", "impl", "peer")) for r in found["records"]]
    assert len(set(keys)) == len(keys), "a contender was recorded twice"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_cases_of_the_gpu_run_on_the_cpu() -> None:
    before = {path: path.read_bytes() for path in FILES}
    done = run("--quick", "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    for op in ("gaussian", "distance", "attention", "prepare", "resample", "smooth", "pool", "stain"):
        assert f"\n{op}  " in done.stdout
    assert "WRONG" not in done.stdout
    assert {path: path.read_bytes() for path in FILES} == before, "a quick look was recorded"


def test_what_is_not_there_is_an_error() -> None:
    torch = pytest.importorskip("torch")
    done = run("--quick", "gausian")
    assert (done.returncode, "no such op: gausian; there are gaussian" in done.stderr) == (2, True), done.stderr
    if not torch.cuda.is_available():
        done = run("--device", "cuda", "pool")
        assert (done.returncode, "sees no CUDA device" in done.stderr) == (2, True), done.stderr
