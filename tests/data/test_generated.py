"""The table of generated images."""

from __future__ import annotations

from pathlib import Path

import pytest

from normscan.data.generated import COLUMNS, Generated, generated_records, read_generated, write_generated
from normscan.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "made"
    (top / "images").mkdir(parents=True)
    for name in ("a.png", "b, c.png"):
        (top / "images" / name).write_bytes(b"x")
    return top


def table(folder: Path, *lines: str) -> Path:
    path = folder / "generated.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_round_trip_and_a_moved_folder(folder: Path) -> None:
    outside = folder.parent / "parent.png"
    rows = [
        Generated(folder / "images" / "a.png", "generated", "singan", 3, outside),
        Generated(folder / "images" / "b, c.png", "generated_from_template", "histaugan", -1),
    ]
    write_generated(folder, rows)
    assert read_generated(folder) == rows
    moved = folder.rename(folder.with_name("moved"))
    assert [row.path.is_file() for row in read_generated(moved / "generated.csv")] == [True, True]


def test_records_are_normals_that_carry_their_origin(folder: Path) -> None:
    write_generated(folder, [Generated(folder / "images" / "a.png", "generated", "singan", 3)])
    (record,) = generated_records(folder)
    assert (record.label, record.split, record.origin) == (0, "train", "generated")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("images/z.png,generated,singan,1,", r"generated.csv: line 2: 'images/z.png' does not exist"),
        ("images/a.png,ok,singan,1,", "line 2: origin is 'ok', expected generated or generated_from_template"),
        ("images/a.png,generated,singan,one,", "line 2: seed is 'one', expected an integer"),
        ("images/a.png,generated", "line 2 has too few columns"),
        ('images/a.png,"generated', "is no CSV"),
    ],
)
def test_wrong_lines(folder: Path, line: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_generated(table(folder, line))


def test_wrong_tables(folder: Path) -> None:
    with pytest.raises(InputError, match="no such table"):
        read_generated(folder)
    with pytest.raises(InputError, match="holds no image"):
        read_generated(table(folder))
    (folder / "generated.csv").write_text("file,origin\n")
    with pytest.raises(InputError, match="columns generator, parent, seed are missing"):
        read_generated(folder)
    (folder / "generated.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_generated(folder)
