"""Data sets whose parts are text files of names.

    root/
      train.txt                          normal images, one a line: a path relative to root
      validation.txt, calibration.txt    the same, where they are wanted apart from train
      unlabelled.txt                     normal and abnormal mixed, nobody knows which
      test.txt                           names with labels: "images/0001.png, abnormal" (or a tab, or 0 and 1)
      test_normal.txt, test_abnormal.txt    in place of test.txt, or beside it: names alone

Empty lines and those that begin with # are skipped. Where there is a train.txt or a test list, folders have no meaning.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from normscan.data.sample import Record
from normscan.errors import InputError

_LABELS = {"0": 0, "normal": 0, "1": 1, "abnormal": 1}
# split, and the label of a name that has none of its own; test.txt gives none.
_LISTS: dict[str, tuple[str, int | None]] = {
    "train.txt": ("train", 0),
    "validation.txt": ("validation", 0),
    "calibration.txt": ("calibration", 0),
    "unlabelled.txt": ("unlabelled", None),
    "test.txt": ("test", None),
    "test_normal.txt": ("test", 0),
    "test_abnormal.txt": ("test", 1),
}
_DECIDING = ("train.txt", "test.txt", "test_normal.txt", "test_abnormal.txt")


def has_lists(top: Path) -> bool:
    """Whether the folder's parts are lists."""
    return any((top / name).is_file() for name in _DECIDING)


def read_lists(top: Path) -> list[Record]:
    """Every listed image with its split and label, in the lists' order.

    Raises `InputError` for a name that is no file, comes twice (in one list or two), or has a label that its list
    cannot give.
    """
    seen: dict[Path, str] = {}
    records = []
    for name, (split, usual) in _LISTS.items():
        if not (top / name).is_file():
            continue
        missing = []
        for number, line in enumerate(_lines(top / name), start=1):
            if not line or line.startswith("#"):
                continue
            where = f"{top / name}, line {number}"
            place, label = _parsed(line)
            image = top / place
            outside = PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts
            if outside or not image.is_file():
                missing.append((where, place))
                continue
            if image in seen:
                raise InputError(f"{where}: {place} is in {seen[image]} already; expected each image once, in one list")
            seen[image] = f"{name}, line {number}"
            records.append(Record(image, label=_label(where, name, label, usual), split=split))
        if missing:
            where, place = missing[0]
            raise InputError(
                f"{where}: {place} is no file in {top} ({len(missing) - 1} more such names); expected paths relative "
                "to the folder of the list"
            )
    return records


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected UTF-8 text, one name a line") from None


def _parsed(line: str) -> tuple[str, int | None]:
    """ "name, label" -> both; a comma that no label follows belongs to the name."""
    for separator in ("\t", ","):
        name, found, tail = line.rpartition(separator)
        if found and (label := _LABELS.get(tail.strip().lower())) is not None:
            return _clean(name), label
    return _clean(line), None


def _clean(name: str) -> str:
    return str(PurePosixPath(name.strip().replace("\\", "/")))


def _label(where: str, name: str, given: int | None, usual: int | None) -> int | None:
    if name == "test.txt":
        if given is None:
            raise InputError(f"{where}: found no label; expected 'name, normal' or 'name, abnormal'")
        return given
    if given is not None and given != usual:
        raise InputError(f"{where}: found the label {given}; expected names alone in {name}")
    return usual
