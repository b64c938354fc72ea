"""Train and evaluate a family on folders of real pictures; one row a folder, and a JSON file with all figures."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import records
from figures import Oracle, matched, planted

from normscan.cli.common import parse_overrides
from normscan.deploy.export import export
from normscan.report.evaluate import evaluate
from normscan.train.run import train

FIGURES = (
    "image_auroc",
    "image_auroc_ci",
    "auprc",
    "prevalence",
    "sensitivity",
    "specificity",
    "pixel_auroc",
    "aupro",
    "specificity_prediction_interval",
    "baselines",
)


def main() -> None:
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--family", default="ocad")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], help="as of `normscan train`: --set weights=FILE")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs"))
    options = parser.parse_args()
    rows = [
        measure(data, options.family, options.preset, {**parse_overrides(options.set), "seed": seed}, options.output)
        for data in options.data
        for seed in options.seeds
    ]
    keys = {key(r) for r in rows}
    kept = [r for r in records.stored().get("real_data", []) if key(r) not in keys]
    records.store(real_data=[*kept, *rows])
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a row the same measurement, done again."""
    return *(row[name] for name in ("data", "family", "preset", "seed")), json.dumps(row.get("set"), sort_keys=True)


def measure(data: Path, family: str, preset: str, overrides: dict[str, Any], output: Path) -> dict[str, Any]:
    """Train, export, evaluate the bundle with baselines."""
    seed = overrides["seed"]
    changed = {name: value for name, value in overrides.items() if name not in ("seed", "weights")}
    folder = output / "-".join([data.name, family, preset, str(seed), *(f"{n}={v}" for n, v in changed.items())])
    started = time.monotonic()
    oracle = Oracle(data)
    run = train(family, data, folder, preset=preset, overrides=overrides, force=True, watch=oracle)
    seconds = time.monotonic() - started
    bundle = export(run.folder)
    found = evaluate(bundle.folder, data, run.folder / "evaluation", baselines=True)
    return {
        "data": data.name,
        "family": family,
        "preset": preset,
        "seed": seed,
        **({"set": changed} if changed else {}),
        "train_seconds": round(seconds, 1),
        "train_images_per_second": round(images_per_second(run.folder), 1),
        **{name: found[name] for name in FIGURES},
        **({"restoration": found["restoration"]} if "restoration" in found else {}),
        "matched": matched(bundle.folder, data),
        "oracle": oracle.gap(found["image_auroc"]),
        "planted_pixel_auroc": planted(bundle.folder, data),
    }


def images_per_second(run: Path) -> float:
    """Of the epochs' steps, validation apart: the median epoch."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return statistics.median(row["images_per_second"] for row in rows)


if __name__ == "__main__":
    main()
