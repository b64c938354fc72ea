"""`normscan compare`: two runs on the same test pictures, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from normscan.cli.common import Batch, Device, Force, Json, Output, Threads, emit


def command(
    first: Annotated[Path, typer.Argument(help="A run folder or a bundle.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    output: Output,
    data: Annotated[
        Path | None, typer.Option("-i", "--input", help="Data folder; default: the one that both were trained on.")
    ] = None,
    batch: Batch = 16,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score the same test pictures with both; write one page and comparison.json, with a paired test of the AUROCs."""
    from normscan.report.compare import compare

    chosen = data or common_data(first, second)
    found = compare((first, second), chosen, output, batch_size=batch, device=device, threads=threads, force=force)
    emit(found, describe(found, output), as_json=as_json)


def common_data(first: Path, second: Path) -> Path:
    """The data folder that both runs were trained on; a `UsageError` where there is no such."""
    from normscan.cli.train import require_torch
    from normscan.deploy.bundle import is_bundle
    from normscan.errors import UsageError

    if is_bundle(first) or is_bundle(second):
        raise UsageError("name the data folder: -i DATA (only a run folder remembers its own)")
    require_torch()
    from normscan.train.folder import Run

    folders = [Run.open(run).data() for run in (first, second)]
    if folders[0].resolve() != folders[1].resolve():
        raise UsageError(
            f"{first} was trained on {folders[0]}, {second} on {folders[1]}: their test sets differ; name one for both "
            "with -i"
        )
    return folders[0]


def describe(found: dict[str, Any], output: Path) -> str:
    """The comparison for people."""
    width = max(26, *(len(run["name"]) + 2 for run in found["runs"]))
    rows = [
        f"  {run['name']:<{width}}image AUROC {run['metrics']['image_auroc']:.3f}  AUPRC {run['metrics']['auprc']:.3f}"
        for run in found["runs"]
    ]
    paired = found["paired"]
    low, high = paired["interval"]
    p = "not defined" if paired["p"] is None else f"{paired['p']:.2g}"
    rows.append(f"  {'second minus first':<{width}}{paired['difference']:+.3f}  [{low:+.3f}, {high:+.3f}]  p {p}")
    low, high = found["paired_auprc"]["interval"]
    rows.append(
        f"  {'the same of the AUPRC':<{width}}{found['paired_auprc']['difference']:+.3f}  [{low:+.3f}, {high:+.3f}]"
    )
    return "\n".join([f"{found['data']}, the same test pictures", *rows, f"page: {output / 'index.html'}"])
