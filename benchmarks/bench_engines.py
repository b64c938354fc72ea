"""Every engine and precision of trained runs: does it decide as torch, and what do TensorRT-RTX's builds take?

    python benchmarks/bench_engines.py RUN... [--no-builds]

Judged on each run's own validation pictures (labelled, or with planted anomalies), nothing kept in float32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import records

from normscan.deploy.acceptance import Truth
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import open_engine
from normscan.deploy.export import CALIBRATION, export
from normscan.deploy.precision import at_precision
from normscan.deploy.quantisation import ranges
from normscan.deploy.tensorrt import Target, engine_for
from normscan.errors import Error
from normscan.train.folder import Run
from normscan.train.run import validator_of

JUDGED = (
    ("fp32", "onnxruntime"), ("fp32", "openvino"), ("fp16", "onnxruntime"), ("fp16", "openvino"),
    ("bf16", "openvino"), ("int8", "onnxruntime"), ("int8", "openvino"),
)  # fmt: skip
BUILT = ("fp32", "fp16", "int8")
TARGETS: dict[str, tuple[str, ...]] = {"sm75": ("sm75",), "default": ()}
MIB = 1 << 20


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--no-builds", action="store_true")
    options = parser.parse_args()
    judged, built = [], []
    for folder in options.runs:
        run = Run.open(folder)
        with tempfile.TemporaryDirectory() as scratch:
            bundle = export(folder, Path(scratch) / f"{run.family.name}.normscan")
            models = in_precisions(run, bundle)
            judged += list(shown(decisions(run, bundle, models)))
            if not options.no_builds:
                built += list(shown(builds(run, bundle, models)))
    records.store(engine_decisions=judged, **({} if options.no_builds else {"engine_builds": built}))


def shown(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Print each as it comes."""
    for row in rows:
        print("  ".join(str(value) for value in row.values()), flush=True)
        yield row


def in_precisions(run: Run, bundle: Bundle) -> dict[str, bytes]:
    """The network in each."""
    normals = validator_of(run).normals(CALIBRATION)
    found = ranges(bundle.model, normals, inputs=bundle.spec.input.largest)
    return {name: at_precision(bundle.model, name, ranges=found) for name in ("fp32", "fp16", "bf16", "int8")}


def decisions(run: Run, bundle: Bundle, models: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """A row for each precision and engine."""
    torch = open_engine("torch", run, device="cpu")
    truth = Truth.of(torch, run.scorer(), run.manifest["spread"], validator_of(run, train=False).examples)
    for precision, engine in JUDGED:
        opened = open_engine(engine, with_model(bundle, models[precision], precision), device="cpu")
        found = truth.judge(opened, bundle.scorer(), precision)
        yield {
            "family": run.family.name,
            "data": Path(run.manifest["data"]["folder"]).name,
            "precision": precision,
            "engine": engine,
            "verdict": "accepted" if found.passed else "refused",
            "images": found.images,
            "flips": found.flips,
            "auroc_difference": round(found.auroc_difference, 5),
            "score_error": float(f"{found.score_error:.2g}"),
            "megabytes": round(len(models[precision]) / 1e6, 2),
        }


def builds(run: Run, bundle: Bundle, models: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    """A row for each precision and set of GPUs."""
    for precision in BUILT:
        for name, gpus in TARGETS.items():
            started = time.perf_counter()
            said, size = "built", None
            try:
                _, made = engine_for(with_model(bundle, models[precision], precision), Target(gpus=gpus))
                size = round(len(made.engine) / MIB, 2)
            except Error as error:
                said = str(error).rpartition("; ")[2]
            yield {
                "family": run.family.name,
                "input": bundle.spec.input.height,
                "precision": precision,
                "gpus": name,
                "seconds": round(time.perf_counter() - started, 1),
                "mebibytes": size,
                "said": said,
            }


def with_model(bundle: Bundle, model: bytes, precision: str) -> Bundle:
    """The bundle with its network in another precision."""
    manifest = {**bundle.manifest, "precision": {**bundle.manifest["precision"], "name": precision}}
    return replace(bundle, manifest=manifest, files={**bundle.files, "model.onnx": model})


if __name__ == "__main__":
    main()
