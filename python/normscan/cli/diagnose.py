"""`normscan diagnose`: from the patches of patients to a diagnosis for each, and how often it is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normscan.cli.common import Batch, Device, Force, Json, Seed, Threads, emit

if TYPE_CHECKING:
    from normscan.scoring.spec import Pool


def command(
    models: Annotated[
        list[Path],
        typer.Argument(help="Bundles (x.normscan) or run folders; several are combined.", show_default=False),
    ],
    data: Annotated[Path, typer.Option("-i", "--input", help="Cohort: CroppedPatches, AnnotatedPatches, tables.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report.")],
    rule: Annotated[
        str, typer.Option(help="A patient's score: fraction (of positive patches), max, topk:0.1, mean, noisy_or.")
    ] = "fraction",
    thresholds: Annotated[
        Path | None, typer.Option(help="thresholds.json of an earlier diagnosis; default: chosen here, in folds.")
    ] = None,
    seed: Seed = 0,
    batch: Batch = 16,
    device: Device = "auto",
    threads: Threads = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Diagnose patients that no model has seen: negative, low or high, with a page for each."""
    from normscan.errors import UsageError
    from normscan.report.diagnose import diagnose

    if thresholds is not None and rule != "fraction":
        raise UsageError("--rule and --thresholds exclude each other: the thresholds have their rule")
    found = diagnose(
        models,
        data,
        output,
        rule=parse_rule(rule),
        thresholds=thresholds,
        batch_size=batch,
        device=device,
        threads=threads,
        seed=seed,
        force=force,
    )
    emit(found, describe(found, output), as_json=as_json)


def parse_rule(text: str) -> Pool:
    """fraction, max, mean, noisy_or, or topk:SHARE."""
    from normscan.errors import UsageError

    method, colon, share = text.partition(":")
    if text in ("fraction", "max", "mean", "noisy_or"):
        return text
    try:
        if method == "topk" and colon and 0 < float(share) <= 1:
            return {"topk": float(share)}
    except ValueError:
        pass
    raise UsageError(f"--rule {text!r}: expected fraction, max, mean, noisy_or, or topk:SHARE as in topk:0.1")


def describe(found: dict[str, Any], output: Path) -> str:
    """The table for people."""

    def figure(value: float | None, interval: list[float] | None) -> str:
        if value is None:
            return "not available"
        return f"{value:.3f}" + (f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")

    lines = [f"{found['patients']} patients, {found['infected']} infected; thresholds from {found['thresholds_from']}"]
    rows = [(name, figure(found[key], found[f"{key}_ci"])) for name, key in _FIGURES]
    if len(found["methods"]) > 1:
        rows += [(f"AUROC of {name}", figure(its["auroc"], its["auroc_ci"])) for name, its in found["methods"].items()]
    rows += [
        (f"patches, {name}", f"{figure(its['auroc'], its['auroc_ci'])}  ({its['annotated']} annotated)")
        for name, its in found["patches"].items()
    ]
    lines += [f"  {name:<26}{value}" for name, value in rows]
    lines += [
        f"  {truth:<10}called " + ", ".join(f"{density} {count}" for density, count in row.items())
        for truth, row in found["confusion"].items()
        if any(row.values())
    ]
    return "\n".join([*lines, f"report: {output / 'index.html'}"])


_FIGURES = (("patient AUROC", "auroc"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))
