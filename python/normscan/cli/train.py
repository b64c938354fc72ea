"""`normscan train`: from a folder of normal pictures to a calibrated run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Data, Device, Force, Json, Output, Threads, emit, parse_overrides


def command(
    family: Annotated[str, typer.Argument(help="The method, as in `normscan doctor`'s list.", show_default=False)],
    data: Data,
    output: Output,
    preset: Annotated[str, typer.Option(help="A named configuration: paper, small.")] = "small",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Override one field: --set epochs=20. Repeatable.")
    ] = None,
    generated: Annotated[
        Path | None, typer.Option(help="Table of generated pictures, or its folder; they join the training.")
    ] = None,
    abnormal: Annotated[
        Path | None, typer.Option(help="Known abnormal pictures, for a family with a supervised form.")
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train a detector on normal pictures, choose its checkpoint on planted anomalies, set its threshold.

    A family that learns from labels takes train/<anything else> too, or a cohort's annotated patches.
    """
    require_torch()
    import torch

    from normscan.data.histology import is_histology
    from normscan.train.run import train

    if threads:
        torch.set_num_threads(threads)
    overrides = parse_overrides(changes or [])
    run = train(
        family,
        data,
        output,
        preset=preset,
        overrides=overrides,
        device=device,
        resume=resume,
        force=force,
        generated=generated,
        abnormal=abnormal,
    )
    said = describe(run.folder, run.manifest)
    if is_histology(data):
        said += f"    normscan diagnose {run.folder} -i {data} -o DIAGNOSIS"
    emit({"run": run.folder, **run.manifest}, said, as_json=as_json)


def require_torch() -> None:
    """A `MissingExtraError` where torch is not installed."""
    from importlib.util import find_spec

    from normscan.errors import MissingExtraError

    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train")


def describe(folder: Path, manifest: dict[str, object]) -> str:
    """The run for people, and what to do next."""
    calibration = manifest["calibration"]
    decision = "no threshold (too few calibration normals)"
    if isinstance(calibration, dict):
        low, high = calibration["interval"]
        decision = (
            f"threshold {calibration['threshold']:.4g} from {calibration['n']} normals: specificity "
            f"{calibration['target_specificity']:.0%} (95 % interval {low:.1%} to {high:.1%})"
        )
    return (
        f"{manifest['family']} trained in {folder}: {decision}\n"
        f"next: normscan evaluate {folder}    normscan export {folder}"
    )
