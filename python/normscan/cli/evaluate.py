"""`normscan evaluate`: how good is it, on labelled test pictures?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from normscan.cli.common import Batch, Device, Force, Json, Model, Threads, emit
from normscan.cli.train import require_torch


def command(
    model: Model,
    data: Annotated[
        Path | None, typer.Option("-i", "--input", help="Data folder; default: the one that the run was trained on.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the report; default: RUN/evaluation.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also measure what needs no training: brightness, colours, ...")
    ] = False,
    batch: Batch = 16,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score the test pictures and write metrics.json, scores.csv and a page to look at."""
    from normscan.deploy.bundle import is_bundle
    from normscan.errors import UsageError
    from normscan.report.evaluate import evaluate

    if data is None:
        if is_bundle(model) or not (model / "manifest.json").is_file():
            raise UsageError("name the data folder: -i DATA (only a run folder remembers its own)")
        from normscan.train.folder import Run

        require_torch()
        data = Run.open(model).data()
    if output is None:
        output = model.absolute().with_suffix(".evaluation") if is_bundle(model) else model / "evaluation"
    found = evaluate(
        model, data, output, baselines=baselines, batch_size=batch, device=device, threads=threads, force=force
    )
    emit(found, describe(found, output), as_json=as_json)


def describe(metrics: dict[str, Any], output: Path) -> str:
    """The table for people."""
    counts = metrics["counts"]
    rows = [
        ("image AUROC", _with_interval(metrics["image_auroc"], metrics["image_auroc_ci"])),
        ("AUPRC", f"{_figure(metrics['auprc'])}  (prevalence {_figure(metrics['prevalence'])})"),
        ("sensitivity", _figure(metrics["sensitivity"])),
        ("specificity", _with_interval(metrics["specificity"], metrics["specificity_ci"])),
    ]
    if (expected := metrics["specificity_prediction_interval"]) is not None:
        promise = "inside" if metrics["specificity_as_promised"] else "OUTSIDE"
        rows.append(("", f"{promise} the 95 % prediction interval [{expected[0]:.3f}, {expected[1]:.3f}]"))
    rows.append(("threshold", _figure(metrics["threshold"])))
    rows += [
        (f"pixel {n}", _figure(metrics[k])) for n, k in (("AUROC", "pixel_auroc"), ("AUPRO", "aupro")) if metrics[k]
    ]
    rows += [(f"baseline {name}", _figure(value)) for name, value in metrics.get("baselines", {}).items()]
    head = f"{counts['normal']} normal and {counts['abnormal']} abnormal test pictures"
    return "\n".join([head, *(f"  {name:<26}{value}" for name, value in rows), f"report: {output / 'index.html'}"])


def _figure(value: float | None) -> str:
    return "not available" if value is None else f"{value:.3f}"


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    return _figure(value) + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if value is not None and interval else "")
