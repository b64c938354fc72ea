"""`normscan bench`: what a score takes, here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normscan.cli.common import Device, Json, emit

if TYPE_CHECKING:
    from normscan.deploy.bench import Row


_HEAD = (
    *("bundle", "precision", "engine", "device", "batch", "threads", "cold s", "p50 ms", "p90", "p99", "images/s"),
    *("read", "prepare", "engine ms", "score", "MiB", "GPU MiB", "of matrix", "x peer"),
)


def command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, say of several precisions.", show_default=False)],
    engine: Annotated[list[str] | None, typer.Option(help="An engine; may be given again. Default: all here.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, max=4096, help="May be given again. Default: 1, 8.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=0, max=1024, help="May be given again; 0: all.")] = None,
    device: Device = "auto",
    data: Annotated[Path | None, typer.Option("-i", "--input", help="Pictures to read. Default: made ones.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, max=3600, help="Of a round.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, max=1000)] = 5,
    peer: Annotated[
        str | None,
        typer.Option(help="A program that is given a folder of pictures and prints milliseconds a picture; in turns."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time every engine, batch and number of threads, each in a process of its own, in turns. Nothing else should run.

    An engine that does not score as torch did is not timed, and the exit code is 5.
    """
    from normscan.deploy.bench import Peer, measure, settings

    wanted = settings(bundles, engine or (), batch or (1, 8), threads or (0,), device)
    rows = measure(wanted, data=data, seconds=seconds, rounds=rounds, peer=None if peer is None else Peer(peer))
    emit([row.as_dict() for row in rows], table(rows), as_json=as_json)
    if any(row.refused for row in rows):
        raise typer.Exit(5)


def table(rows: list[Row]) -> str:
    """A line for each setting; times are of a call, a batch of pictures."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for row in rows:
        named = (row.bundle, row.precision, f"{row.engine} {row.version}"[:24], row.device, row.batch, row.threads)
        figures = (row.cold_start_s, row.p50_ms, row.p90_ms, row.p99_ms, row.images_per_second, *row.hops_ms.values())
        ends = (row.peak_mib, row.device_mib, row.of_matrix, row.times_peer)
        told = (*named, *figures, *ends) if not row.refused else (*named, "refused")
        lines.append(tuple("" if value is None else str(value) for value in told))
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(_HEAD))]
    text = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=False)).rstrip() for line in lines
    ]
    return "\n".join([*text, *(row.refused for row in rows if row.refused)])
