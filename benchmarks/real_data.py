"""Train and evaluate a family on folders of real pictures; one row a folder, and a JSON file with all figures."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import records

from normscan.cli.common import parse_overrides
from normscan.data.layouts import read_layout
from normscan.data.read import read_image
from normscan.deploy.export import export
from normscan.deploy.session import load
from normscan.progress import track
from normscan.report.evaluate import evaluate
from normscan.scoring.metrics import auroc, auroc_interval
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
    run = train(family, data, folder, preset=preset, overrides=overrides, force=True)
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
        "matched": matched(bundle.folder, data),
    }


def images_per_second(run: Path) -> float:
    """Of the epochs' steps, validation apart: the median epoch."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    return statistics.median(row["images_per_second"] for row in rows)


def matched(bundle: Path, data: Path) -> dict[str, Any]:
    """AUROC once every test picture has the mean and standard deviation of the training normals.

    Where brightness alone separates a test set, this is what remains when it cannot.
    """
    records = read_layout(data)
    train = [read_image(r.path).astype(np.float32) for r in records if r.split == "train"]
    mean, spread = np.mean([p.mean() for p in train]), np.mean([p.std() for p in train])
    session = load(bundle)
    test = [r for r in records if r.split == "test" and r.label is not None]
    scores = []
    for record in track(test, "matched", len(test)):
        pixels = read_image(record.path).astype(np.float32)
        pixels = (pixels - pixels.mean()) / max(pixels.std(), 1e-6) * spread + mean
        scores.append(session.score(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).score)
    labels = [r.label for r in test]
    return {"image_auroc": auroc(labels, scores), "image_auroc_ci": auroc_interval(labels, scores)}


if __name__ == "__main__":
    main()
