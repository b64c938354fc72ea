"""`normscan export`: from a run to a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Force, Json, emit
from normscan.cli.train import require_torch


def command(
    run: Annotated[Path, typer.Argument(help="A finished run folder.", show_default=False)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: RUN/<family>.normscan")] = None,
    distances: Annotated[
        str, typer.Option("--distances", help="native: the core compares features; graph: the engine gives out maps.")
    ] = "native",
    thresholds: Annotated[
        Path | None, typer.Option(help="thresholds.json of `normscan diagnose`: the bundle then diagnoses patients.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the bundle (ONNX, statistics, calibration, golden answers) and prove that it scores as torch does."""
    require_torch()
    from normscan.deploy.export import export
    from normscan.deploy.verify import as_dict, explain, verify

    bundle = export(run, output, distances=distances, thresholds=thresholds, force=force)
    found = verify(bundle.folder)
    size = sum(file.stat().st_size for file in bundle.folder.iterdir())
    emit(
        {"bundle": bundle.folder, "bytes": size, "verify": [as_dict(c) for c in found]},
        f"{bundle.folder} ({size / 1e6:.1f} MB)\n" + "\n".join(explain(c) for c in found),
        as_json=as_json,
    )
