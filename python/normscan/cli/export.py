"""`normscan export`: from a run to a verified bundle, and from a bundle to engines for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from normscan.cli.common import Force, Json, emit
from normscan.cli.train import require_torch
from normscan.errors import UsageError


def command(
    model: Annotated[Path, typer.Argument(help="A finished run; or a bundle, to build an engine for.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: RUN/<family>.normscan")] = None,
    distances: Annotated[
        str, typer.Option("--distances", help="native: the core compares features; graph: the engine gives out maps.")
    ] = "native",
    thresholds: Annotated[
        Path | None, typer.Option(help="thresholds.json of `normscan diagnose`: the bundle then diagnoses patients.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="fp32, fp16, bf16 or int8; lower ones must decide as float32 does on validation pictures."),
    ] = "fp32",
    keep: Annotated[list[str] | None, typer.Option(help="A layer that stays float32; may be given again.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Find the layers that must stay float32.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            help="tensorrt or tensorrt-rtx: build an engine, too, beside the bundle. triton: write a bundle into the "
            "model repository -o. onnxruntime or openvino: the one that a lower precision is judged on."
        ),
    ] = None,
    batch: Annotated[
        tuple[int, int, int], typer.Option(metavar="MIN OPT MAX", help="Pictures in a call of a built engine.")
    ] = (1, 8, 32),
    gpu: Annotated[
        str, typer.Option(help="What to build for: sm86,sm89 and the like, or current; for triton: served on a GPU.")
    ] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="With triton: serve an engine of tensorrt in place of the ONNX file.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the bundle (ONNX, statistics, calibration, golden answers) and prove that it scores as torch does."""
    from normscan.deploy.bundle import Bundle, is_bundle
    from normscan.deploy.tensorrt import BATCH, MODULES, Target, engine_for
    from normscan.deploy.triton import write_repository
    from normscan.deploy.verify import verify

    triton = engine == "triton"
    library = "tensorrt" if triton and plan else engine
    target = Target(library, tuple(filter(None, gpu.split(","))), batch) if library in MODULES else None
    if plan and not triton:
        raise UsageError("--plan goes with --engine triton")
    if (gpu or batch != BATCH) and not (target or triton):
        raise UsageError("--gpu and --batch are for what is built: --engine tensorrt, tensorrt-rtx or triton")
    if triton and (output is None or not is_bundle(model)):
        raise UsageError("--engine triton writes a bundle into a repository: normscan export BUNDLE -o REPOSITORY")
    if is_bundle(model):
        given = Bundle.open(model)
        changes = bool(thresholds or keep or auto or (output and not triton)) or distances != "native"
        if not (target or triton) or changes or precision != "fp32":
            raise UsageError(
                f"{model} is a bundle: engines are built from it (--engine tensorrt or tensorrt-rtx, --gpu, --batch), "
                "or a repository (--engine triton); for anything else name the run"
            )
    else:
        require_torch()
        from normscan.deploy.export import export

        given = export(
            model,
            output,
            distances=distances,
            thresholds=thresholds,
            precision=precision,
            engine=None if target or triton else engine,
            keep=keep or (),
            auto=auto,
            force=force,
        )
    found = verify(given.folder)
    size = sum(file.stat().st_size for file in given.folder.iterdir())
    value = {"bundle": given.folder, "bytes": size, "verify": [c.as_dict() for c in found], "engine": None}
    lines = [f"{given.folder} ({size / 1e6:.1f} MB, {given.precision})", *(c.explain() for c in found)]
    built = None
    if target is not None:
        path, built = engine_for(given, target, force=force)
        value["engine"] = {"path": path, "bytes": len(built.engine), **vars(built.fingerprint)}
        lines.append(f"{path} ({len(built.engine) / 1e6:.1f} MB, for {', '.join(built.fingerprint.gpus)})")
    if triton and output is not None:
        served = write_repository(output, given, batch=batch, engine=built, gpu=bool(gpu), force=force)
        value["repository"] = served
        lines.append(f"{served}: a model of Triton's repository {output}")
    emit(value, "\n".join(lines), as_json=as_json)
