"""The table of generated images: which file came from where, so that nobody has to guess it from a name.

    generated.csv     file,origin,generator,seed,parent

file       the image, relative to the table's folder
origin     "generated" (from OK images) or "generated_from_template" (from the one good template)
generator  "histaugan" or "singan", or whatever made it
seed       of the draw, an integer
parent     the image that it was made from, relative to the table's folder where it lies inside, else absolute; empty
           where there is none
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normscan.data.read import PathLike
from normscan.data.sample import Record
from normscan.errors import InputError
from normscan.files import write_bytes

TABLE = "generated.csv"
ORIGINS = ("generated", "generated_from_template")
COLUMNS = ("file", "origin", "generator", "seed", "parent")


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated image."""

    path: Path
    origin: str
    generator: str
    seed: int
    parent: Path | None = None


def write_generated(folder: PathLike, rows: Sequence[Generated]) -> Path:
    """Write `generated.csv` of the images in `folder`; returns its path."""
    top = Path(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        parent = "" if row.parent is None else _from(top, row.parent)
        writer.writerow([_from(top, row.path), row.origin, row.generator, row.seed, parent])
    path = top / TABLE
    write_bytes(path, text.getvalue().encode())
    return path


def read_generated(target: PathLike) -> list[Generated]:
    """The rows of a table, or of the one in a folder.

    Raises InputError naming table and line for a missing file, an unknown origin, a column that is missing or a seed
    that is no number.
    """
    path = Path(target)
    path = path / TABLE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no such table; `normscan generate` writes one")
    try:
        text = path.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from error
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise InputError(f"{path}: columns {', '.join(sorted(missing))} are missing; expected {', '.join(COLUMNS)}")
        rows = [_row(path, number, row) for number, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num} is no CSV ({error})") from error
    if not rows:
        raise InputError(f"{path}: holds no image, expected one a line")
    return rows


def generated_records(target: PathLike) -> list[Record]:
    """The images of a table as training normals that carry their origin; the group is the parent's name."""
    return [
        Record(row.path, label=0, split="train", origin=row.origin, group=str(row.parent) if row.parent else None)
        for row in read_generated(target)
    ]


def _from(top: Path, path: Path) -> str:
    """Relative where it lies inside, so that the folder can be moved."""
    whole, inside = path.resolve(), top.resolve()
    return whole.relative_to(inside).as_posix() if whole.is_relative_to(inside) else whole.as_posix()


def _row(path: Path, number: int, row: dict[str, str]) -> Generated:
    where = f"{path}: line {number}"
    if any(row.get(column) is None for column in COLUMNS):
        raise InputError(f"{where} has too few columns; expected {', '.join(COLUMNS)}")
    image = path.parent / row["file"]
    if not row["file"] or not image.is_file():
        raise InputError(f"{where}: {row['file']!r} does not exist in {path.parent}; generate the images again")
    if row["origin"] not in ORIGINS:
        raise InputError(f"{where}: origin is {row['origin']!r}, expected {' or '.join(ORIGINS)}")
    try:
        seed = int(row["seed"])
    except ValueError:
        raise InputError(f"{where}: seed is {row['seed']!r}, expected an integer") from None
    parent = path.parent / row["parent"] if row["parent"] else None
    return Generated(image, row["origin"], row["generator"], seed, parent)
