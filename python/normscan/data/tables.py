"""A cohort's tables as spreadsheets save them: UTF-8, byte-order mark or not, commas or semicolons, blank rows."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from normscan.errors import InputError

_T = TypeVar("_T")


def word(where: str, column: str, found: str, words: Mapping[str, _T]) -> _T:
    """What `found` means in `words`, whatever its capitals; `where` and `column` are for the error."""
    folded = {name.casefold(): value for name, value in words.items()}
    if found.casefold() not in folded:
        raise InputError(
            f"{where}: {column} is {found!r}; expected {', '.join(words)}, or other words in its cohort.json"
        )
    return folded[found.casefold()]


def rows(table: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows as ("table, line n", column -> value), spaces trimmed, blank rows skipped; optional columns may be empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=";" if first.count(";") > first.count(",") else ",", strict=True)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            doubled = [name for name in (*columns, *optional) if header.count(name) > 1]
            if missing or doubled:
                what = f"column {missing[0]} is missing" if missing else f"column {doubled[0]} comes twice"
                raise InputError(
                    f"{table}: {what}; found {header}, expected {', '.join(columns)}, or others in its cohort.json"
                )
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                where = f"{table}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(f"{where}: found {len(cells)} fields; expected {len(header)}, as in the header")
                row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                empty = [name for name in columns if not row[name]]
                if empty:
                    raise InputError(f"{where}: {empty[0]} is empty; expected a value, complete or remove the row")
                yield where, {name: row.get(name, "") for name in (*columns, *optional)}
    except FileNotFoundError:
        raise InputError(
            f"{table}: no such table; expected columns {', '.join(columns)}, or another name in its cohort.json"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); expected a UTF-8 table, save it as 'CSV UTF-8'") from None
