"""Data sets whose parts are one data.json, as SAGAN (Zhang et al. 2024) and DDAD (Cai et al. 2022) lay them out.

    root/
      images/      every picture
      data.json    {"train": {"0": [names], "unlabeled": {"0": [names], "1": [names]}},
                    "test": {"0": [names], "1": [names]}}

0 is normal, 1 abnormal. A name is a path in images/, or else in root. "unlabeled" may be a plain list; any key may be
absent. What the file says of unlabelled pictures, no record says: nothing that learns from them can know it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from normscan.data.sample import Record
from normscan.errors import InputError

FILE = "data.json"
_SHOWN = 3  # missing files that a message names
_LABELS = {"0": 0, "1": 1}


class _Part(NamedTuple):
    """Names under one key, and what they are."""

    key: str
    names: list[Any]
    split: str
    label: int | None


def has_jsonlist(top: Path) -> bool:
    """Whether the folder's parts are in a data.json."""
    return (top / FILE).is_file()


def read_jsonlist(top: Path) -> list[Record]:
    """Every named image with its split and label, sorted by path: nor does the order tell an unlabelled one's label.

    Raises `InputError` for a file that is no such JSON, and for names that are no files of the folder or come twice.
    """
    file = top / FILE
    seen: dict[Path, str] = {}
    missing: list[str] = []
    records = []
    for part in _parts(file):
        for name in part.names:
            where = f"{file}: {part.key}"
            image = _found(top, _place(where, name))
            if image is None:
                missing.append(f"{part.key} {name!r}")
            elif image in seen:
                raise InputError(f"{where}: {name!r} is in {seen[image]} already; expected each image once")
            else:
                seen[image] = part.key
                records.append(Record(image, label=part.label, split=part.split))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{file}: {len(missing)} names are no files ({', '.join(missing[:_SHOWN])}{more}); expected paths in "
            f"{top / 'images'}, or in {top}"
        )
    return sorted(records, key=lambda record: record.path)


def _parts(file: Path) -> Iterator[_Part]:
    whole = _table(file, "its whole", _loaded(file), ("train", "test"))
    train = _table(file, "train", whole.get("train", {}), ("0", "unlabeled"))
    yield _part(file, "train/0", train.get("0", []), "train", 0)
    unlabelled = train.get("unlabeled", [])
    if isinstance(unlabelled, list):
        yield _part(file, "train/unlabeled", unlabelled, "unlabelled", None)
    else:
        for key, names in _table(file, "train/unlabeled", unlabelled, tuple(_LABELS)).items():
            yield _part(file, f"train/unlabeled/{key}", names, "unlabelled", None)
    for key, names in _table(file, "test", whole.get("test", {}), tuple(_LABELS)).items():
        yield _part(file, f"test/{key}", names, "test", _LABELS[key])


def _part(file: Path, key: str, names: Any, split: str, label: int | None) -> _Part:
    if not isinstance(names, list):
        raise InputError(f"{file}: {key} is {_kind(names)}; expected a list of names")
    return _Part(key, names, split, label)


def _loaded(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8-sig"), object_pairs_hook=lambda pairs: _once(file, pairs))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); expected JSON in UTF-8") from None


def _once(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table; of two equal keys json would keep the last, and the other's pictures would be gone in silence."""
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise InputError(f"{file}: found the key {key!r} twice in one table; expected it once")
        table[key] = value
    return table


def _table(file: Path, key: str, found: Any, expected: tuple[str, ...]) -> dict[str, Any]:
    keys = " and ".join(f'"{name}"' for name in expected)
    if not isinstance(found, dict):
        raise InputError(f"{file}: {key} is {_kind(found)}; expected a table with {keys}")
    if strangers := sorted(found.keys() - set(expected)):
        raise InputError(f"{file}: {key} has the key {strangers[0]!r}; expected {keys} and no other")
    return found


def _kind(found: Any) -> str:
    kinds = {dict: "a table", list: "a list", str: "a text", type(None): "null"}
    return kinds.get(type(found), f"the value {found!r}")


def _place(where: str, name: Any) -> PurePosixPath:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: found {name!r}; expected the name of an image")
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts:
        raise InputError(f"{where}: {name!r} leads out of the folder; expected a path in images/, without '..'")
    return place


def _found(top: Path, place: PurePosixPath) -> Path | None:
    """The image of that name: in images/, or else in the folder itself. os.path says False to any odd name."""
    return next((path for path in (top / "images" / place, top / place) if os.path.isfile(path)), None)
