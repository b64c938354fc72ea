"""Folders of images, and folder trees that are data sets.

    root/
      train/normal/           also called good, ok, healthy or benign; capitals do not matter (OCAD: Train/Benign)
      train/unlabelled/       normal and abnormal mixed, nobody knows which
      train/<anything else>/  abnormal images: label 1, split train; each family decides whether it may see them
      validation/, calibration/     the same, where they are wanted apart from train (calibration: normals only)
      test/normal/, test/<defect>/
      ground_truth/<defect>/<stem>.png or <stem>_mask.png
      groups.csv or MANIFEST.csv    columns file, group: which patient, lesion or slide an image belongs to

`benign` is a normal name only in a tree where no folder has one of the others: beside `normal`, as in breast
ultrasound, it names a tumour. A folder with lists of names in place of such folders: `normscan.data.lists`, or with a
data.json: `normscan.data.jsonlist`.
"""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from normscan.data.jsonlist import FILE, has_jsonlist, read_jsonlist
from normscan.data.lists import has_lists, read_lists
from normscan.data.read import SUFFIXES, PathLike
from normscan.data.sample import Record
from normscan.data.slides import SLIDE_SUFFIXES
from normscan.errors import InputError

_NORMAL = frozenset({"normal", "good", "ok", "healthy"})
_UNLABELLED = frozenset({"unlabelled", "unlabeled"})
_SPLITS = ("train", "validation", "calibration", "test")
_EXPECTED = "expected train/normal/ with images, and test/normal/ and test/<defect>/ to evaluate"


def find_images(target: PathLike, *, slides: bool = False) -> list[Path]:
    """Images named by a file, a folder (recursively) or a glob pattern ("scans/**/*.png"), sorted, each once.

    Hidden files and folders are skipped, links are followed. A file named outright is taken whatever its suffix is.
    With `slides`, whole-slide pictures are found too.
    Raises InputError where nothing is found.
    """
    text = os.fspath(target)
    path = Path(text)
    if path.is_dir():
        found = list(_walk(path))
    elif path.exists():
        return [path]
    elif glob.has_magic(text):
        matches = [Path(match) for match in glob.glob(text, recursive=True)]
        found = [image for match in matches for image in (_walk(match) if match.is_dir() else [match])]
    else:
        raise InputError(f"{text}: no such file or folder; check the name")
    wanted = SUFFIXES + SLIDE_SUFFIXES if slides else SUFFIXES
    images = sorted({image for image in found if image.suffix.lower() in wanted})
    if not images:
        others = Counter(image.suffix.lower() or "no suffix" for image in found).most_common(3)
        seen = ", ".join(f"{count} {suffix}" for suffix, count in others) or "no files"
        raise InputError(f"{text}: found {seen}; expected images ({', '.join(wanted)}), name another folder")
    return images


def _walk(folder: Path) -> Iterator[Path]:
    """All files that are not hidden. A folder linked into itself is visited once."""
    visited: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_unlistable):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield _named(Path(parent, name))


def _named(path: Path) -> Path:
    """A name that is no UTF-8 cannot be written into a table or a page."""
    if not path.as_posix().isprintable() and any("\ud800" <= letter <= "\udfff" for letter in path.as_posix()):
        raise InputError(f"{os.fsencode(path)!r}: the name is not valid UTF-8; rename the file")
    return path


def _unlistable(error: OSError) -> None:
    """A folder that may not be read is an error, not an empty folder."""
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); give access to it or move it away")


def read_layout(root: PathLike, *, training: bool = True) -> list[Record]:
    """Read a folder tree (see the module), lists or a data.json -> records sorted by path, none of them opened.

    Raises InputError for a tree without train/normal (unless `training` is False: a test set may come alone), a table
    that does not fit it, or a folder without a meaning.
    `splits.check_disjoint` is the caller's next step.
    """
    top = Path(root)
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; {_EXPECTED}")
    if has_lists(top) or has_jsonlist(top):
        return _listed(top, training=training)
    folders = _class_folders(top)
    normal = _NORMAL if any(_name(key) in _NORMAL for key in folders) else frozenset({"benign"})
    if not folders or (training and not any(key[0] == "train" and _name(key) in normal for key in folders)):
        listing = ", ".join(f"{split}/{name} ({len(images)} images)" for (split, name), images in folders.items())
        names = ", ".join(sorted(child.name for child in top.iterdir())[:10])
        raise InputError(f"{top}: found {listing or names or 'an empty folder'}; {_EXPECTED}")
    groups = _read_groups(top, [image for images in folders.values() for image in images])
    masks = _read_masks(top)
    records = []
    for key, images in folders.items():
        split, label = _meaning(key, normal, images[0])
        for image in images:
            place = PurePosixPath(*image.relative_to(top).parts[1:]).with_suffix("")
            mask = masks.get(place) if split == "test" else None
            records.append(Record(image, label=label, split=split, group=groups.get(image), mask=mask))
    _refuse_idle(masks, records, _MASK_NAMES)
    return sorted(records, key=lambda record: record.path)


def _listed(top: Path, *, training: bool) -> list[Record]:
    """What `read_layout` reads where lists say what is what; a mask lies in ground_truth/ under its image's path."""
    in_json = has_jsonlist(top)
    if in_json and has_lists(top):
        raise InputError(f"{top}: found {FILE} and lists of names (.txt); expected one of them, remove the other")
    records = read_jsonlist(top) if in_json else read_lists(top)
    if training and not any(record.split == "train" for record in records):
        where = f'names under "train", "0" in {FILE}' if in_json else "train.txt with names"
        raise InputError(f"{top}: its lists name no training image; expected {where}")
    groups = _read_groups(top, [record.path for record in records])
    masks = _read_masks(top)
    found = []
    for record in records:
        place = PurePosixPath(*record.path.relative_to(top).parts).with_suffix("")
        mask = masks.get(place) if record.split == "test" else None
        found.append(replace(record, group=groups.get(record.path), mask=mask))
    _refuse_idle(
        masks, found, f"expected ground_truth/<the image's path in {top}>, perhaps with _mask before the suffix"
    )
    return sorted(found, key=lambda record: record.path)


def _refuse_idle(masks: Mapping[PurePosixPath, Path], records: Iterable[Record], expected: str) -> None:
    """Masks that go with no image at all have wrong names."""
    if masks and not any(record.mask for record in records):
        first = next(iter(masks.values()))
        raise InputError(f"{first}: no test image goes with it, nor with {len(masks) - 1} other masks; {expected}")


_Key = tuple[str, str]  # split, the folder's name as it is written
_MASK_NAMES = "expected ground_truth/<defect>/<stem>[_mask].png for test/<defect>/<stem>.*"


def _name(key: _Key) -> str:
    return key[1].lower()


def _children(top: Path, name: str) -> list[Path]:
    """Folders of that name, whatever their capitals."""
    return sorted(child for child in top.iterdir() if child.is_dir() and child.name.lower() == name)


def _class_folders(top: Path) -> dict[_Key, list[Path]]:
    folders: dict[_Key, list[Path]] = {}
    for split in _SPLITS:
        for folder in _children(top, split):
            for image in _walk(folder):
                if image.suffix.lower() not in SUFFIXES:
                    continue
                inside = image.relative_to(folder).parts
                if len(inside) == 1:
                    raise InputError(f"{image}: lies directly in {folder.name}/; {_EXPECTED}, move it into one of them")
                folders.setdefault((split, inside[0]), []).append(image)
    return folders


def _meaning(key: _Key, normal: frozenset[str], example: Path) -> tuple[str, int | None]:
    """Split and label of a folder's images."""
    split = key[0]
    if _name(key) in _UNLABELLED:
        if split != "train":
            raise InputError(f"{example}: found unlabelled images in {split}; expected them in train/unlabelled/ alone")
        return "unlabelled", None
    label = 0 if _name(key) in normal else 1
    if split == "calibration" and label:
        raise InputError(f"{example}: found an abnormal image; calibration takes normal images alone, move it to test/")
    return split, label


def _read_masks(top: Path) -> dict[PurePosixPath, Path]:
    """Masks by <defect>/<stem>; MVTec AD writes <stem>_mask."""
    masks = {}
    for folder in _children(top, "ground_truth"):
        for mask in _walk(folder):
            if mask.suffix.lower() in SUFFIXES:
                place = PurePosixPath(*mask.relative_to(folder).parts).with_suffix("")
                masks[place.with_name(place.name.removesuffix("_mask") or place.name)] = mask
    return masks


def _read_groups(top: Path, images: Iterable[Path]) -> dict[Path, str]:
    """Groups by image, from groups.csv or else MANIFEST.csv; an empty group is an unknown one.

    groups.csv is written for this purpose: it has a row for every image and no other, since a forgotten row would let a
    patient straddle splits in silence. MANIFEST.csv tells where images come from, perhaps more than are here; it
    only has to name one of them.
    """
    known = {PurePosixPath(*image.relative_to(top).parts): image for image in images}
    strict = (top / "groups.csv").is_file()
    table = top / ("groups.csv" if strict else "MANIFEST.csv")
    if not table.is_file():
        return {}
    rows = _read_table(table)
    strangers = [place for place in rows if place not in known]
    unlisted = [place for place in known if place not in rows]
    if strict and (strangers or unlisted):
        what = f"names {strangers[0]}, which is no image here" if strangers else f"has no row for {unlisted[0]}"
        count = len(strangers) + len(unlisted) - 1
        raise InputError(f"{table}: {what} ({count} more such cases); expected one row for each image")
    if len(unlisted) == len(known):
        raise InputError(f"{table}: names none of the {len(known)} images; expected paths such as {next(iter(known))}")
    return {known[place]: group for place, group in rows.items() if group and place in known}


def _read_table(table: Path) -> dict[PurePosixPath, str]:
    rows: dict[PurePosixPath, str] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"file", "group"} <= set(columns):
                raise InputError(f"{table}: found columns {list(columns)}; expected file and group, comma-separated")
            for row in reader:
                place = PurePosixPath((row["file"] or "").strip().replace("\\", "/"))
                group = (row["group"] or "").strip()
                if rows.setdefault(place, group) != group:
                    raise InputError(f"{table}, line {reader.line_num}: {place} has two groups; expected one row")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); expected a UTF-8 table of file and group") from None
    return rows
