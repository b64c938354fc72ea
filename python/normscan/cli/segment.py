"""`normscan segment`: find a part in large pictures, cut it out, write annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normscan.cli.common import Force, Json, Output, emit

if TYPE_CHECKING:
    from normscan.data.segment import Found


def command(
    data: Annotated[Path, typer.Option("-i", "--input", help="Picture, folder or pattern of pictures.")],
    template: Annotated[Path, typer.Option("-t", "--template", help="A picture of the part, cut out of such a one.")],
    output: Output,
    threshold: Annotated[float, typer.Option(min=0.001, max=1, help="Least normalised correlation of a match.")] = 0.5,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.999, help="Of boxes that share more (IoU), the better one stays.")
    ] = 0.25,
    limit: Annotated[int, typer.Option(min=1, help="Most parts in a picture.")] = 8,
    scales: Annotated[str, typer.Option(help="Sizes relative to the template: 0.9,1,1.1")] = "1",
    rotate: Annotated[
        float, typer.Option(min=0, max=180, help="Look for parts turned by up to this, in degrees.")
    ] = 0.0,
    rotate_step: Annotated[float, typer.Option(min=0.1, max=180, help="Degrees between two rotations.")] = 5.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Find a part by its template; write crops, annotations (CSV and COCO) and pictures with the boxes on them.

    Pictures without a match are listed and the others go on (exit code 4; 3 if there is none with one).
    """
    from normscan.data.segment import Search, segment

    search = Search(threshold, overlap, limit, parse_scales(scales), angles(rotate, rotate_step))
    found = segment(data, template, output, search, force=force)
    failed = {str(item.path): item.error for item in found if item.error}
    parts = sum(len(item.matches) for item in found)
    value = {"output": output, "pictures": len(found), "parts": parts, "failed": failed}
    emit(value, describe(found, parts, output), as_json=as_json)
    if failed:
        raise typer.Exit(4)


def describe(found: list[Found], parts: int, output: Path) -> str:
    """The parts for people."""
    rows = [
        f"  {item.path.name:<32} {len(item.matches)}  scores "
        + (", ".join(f"{match.score:.3f}" for match in item.matches) or "none: no match")
        for item in found
    ]
    head = f"{parts} parts in {len(found)} pictures"
    return "\n".join([head, *rows, f"crops, boxes and annotations: {output}"])


def parse_scales(text: str) -> tuple[float, ...]:
    """ "0.9,1" -> (0.9, 1.0)."""
    from normscan.data.segment.match import LARGEST, SMALLEST
    from normscan.errors import UsageError

    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(SMALLEST <= scale <= LARGEST for scale in found):
        raise UsageError(f"--scales {text!r}: expected numbers of {SMALLEST} to {LARGEST}, as in --scales 0.9,1,1.1")
    return found


def angles(most: float, step: float) -> tuple[float, ...]:
    """0 and every step up to `most` to both sides; a half turn is one angle, not two."""
    sides = [step * i for i in range(1, int(most / step + 1e-9) + 1)]
    return (0.0, *(turn for side in sides for turn in ((side, -side) if side < 180 else (side,))))
