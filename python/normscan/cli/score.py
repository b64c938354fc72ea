"""`normscan score`: scores and decisions for pictures and whole slides, one row each."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normscan.cli import slides
from normscan.cli.common import SCORES, Batch, Device, Force, Json, Model, Threads, emit, scores_row
from normscan.cli.patients import Patients

if TYPE_CHECKING:
    from normscan.deploy.session import Session


def command(
    model: Model,
    data: Annotated[
        str, typer.Option("-i", "--input", help="A picture, a slide, a folder (searched below) or a glob.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for scores.csv, maps, slides; default: CSV on stdout.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Write an overlay PNG of each picture (needs -o).")] = False,
    tile_mpp: slides.Mpp = None,
    magnification: slides.Magnification = None,
    level_0: slides.LevelZero = False,
    overlap: slides.Overlap = 0,
    tissue: slides.Tissue = 0.25,
    batch: Batch = 16,
    device: Device = "auto",
    threads: Threads = 0,
    engine: Annotated[
        str | None, typer.Option(help="onnxruntime, openvino, tensorrt, tensorrt-rtx (bundle) or torch (run).")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Score pictures and whole slides. Bad files are listed and the others scored (exit code 4; 3 if none could be).

    With -o each slide gives slides/NAME.png, where it is anomalous, and slides/NAME.tiles.csv.
    """
    from normscan.data.layouts import find_images
    from normscan.deploy.session import load
    from normscan.errors import UsageError
    from normscan.progress import say

    if maps and output is None:
        raise UsageError("--maps needs -o FOLDER to write to")
    if output is not None and (output / "scores.csv").exists() and not force:
        raise UsageError(f"{output / 'scores.csv'} exists; overwrite it with --force or choose another -o")
    tiling = slides.tiling(tile_mpp, magnification, level_0, overlap, tissue)
    paths = find_images(data, slides=True)
    pictures, whole = slides.sorted_out(paths)
    if (maps or whole) and output and any(path.is_relative_to(output) for path in paths):
        raise UsageError(
            f"-o {output} lies among the pictures of -i {data}: its maps would be scored too; choose another"
        )
    session = load(model, engine=engine, device=device, threads=threads)
    say(f"engine: {', '.join(session.engine.fingerprint().values())}")
    if session.scorer.spec.calibration is None:
        say("no threshold in this model: scores carry no decision")
    root = Path(os.path.commonpath([path.parent for path in paths]))
    patients = Patients(session) if session.scorer.spec.group is not None else None
    rows = chain(
        _rows(session, pictures, root, batch, output / "maps" if maps and output else None, patients),
        slides.rows(session, whole, root, tiling, batch, output / "slides" if output else None),
    )
    tally = {"images": len(paths), "anomalous": 0, "failed": 0}
    if output is None:
        found = list(_counted(rows, tally))
        emit({**tally, "rows": found}, _table(found), as_json=as_json)
    else:
        _write(output / "scores.csv", _counted(rows, tally))
        text = "{images} pictures: {anomalous} anomalous, {failed} failed".format(**tally)
        if patients is not None and pictures:
            text = f"{patients.write(output / 'scores_patients.csv')}\n{text}"
        emit({**tally, "scores": output / "scores.csv"}, f"{text}; {output / 'scores.csv'}", as_json=as_json)
    if tally["failed"]:
        raise typer.Exit(3 if tally["failed"] == len(paths) else 4)


def _rows(
    session: Session, paths: list[Path], root: Path, batch: int, map_folder: Path | None, patients: Patients | None
) -> Iterator[dict[str, Any]]:
    from normscan.errors import InputError
    from normscan.progress import say, track
    from normscan.report.pictures import write_overlay

    for path, result in track(session.stream(paths, batch_size=batch), "score", len(paths)):
        name = path.relative_to(root).as_posix()
        if isinstance(result, InputError):
            say(str(result))
            yield scores_row(name, error=str(result))
            continue
        if patients is not None:
            patients.add(path, result.score)
        error = None
        if map_folder is not None:
            try:
                write_overlay(map_folder / f"{name}.png", path, result.map, session.map_scale)
            except InputError as problem:  # it was there when it was scored
                error = str(problem)
                say(error)
        decision = None if result.decision is None else ("anomalous" if result.decision else "normal")
        yield scores_row(name, result.score, decision, result.threshold, error)
    if paths:
        say(session.hops.explain())


def _counted(rows: Iterator[dict[str, Any]], tally: dict[str, int]) -> Iterator[dict[str, Any]]:
    for row in rows:
        tally["anomalous"] += row["decision"] == "anomalous"
        tally["failed"] += row["error"] is not None
        yield row


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write scores.csv as the rows come."""
    from normscan.files import temporary_file

    with temporary_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, SCORES, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow(row)


def _table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, SCORES, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().rstrip("\n")
