"""Cutting parts out of large pictures: find them with a template, write crops and their annotations.

OUTPUT/crops/<picture>-<number>.png
OUTPUT/boxes/<picture>.png       the picture with the boxes on it
OUTPUT/annotations.csv           a row a part: crop,picture,score,x,y,width,height,angle,scale
OUTPUT/annotations.json          the same as COCO (bbox around, segmentation along the rotated box)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.layouts import find_images
from normscan.data.read import PathLike, read_image, write_image
from normscan.data.segment.match import Match, NoMatchError, Search, find_parts
from normscan.data.segment.picture import Pixels, crop, draw
from normscan.errors import InputError
from normscan.files import temporary_folder, write_bytes, write_json
from normscan.progress import say, track

__all__ = ["Found", "Match", "NoMatchError", "Search", "crop", "draw", "find_parts", "segment"]

CROPS, BOXES, TABLE, COCO = "crops", "boxes", "annotations.csv", "annotations.json"
COLUMNS = ("crop", "picture", "score", "x", "y", "width", "height", "angle", "scale")
_DIGITS = 3
"""Thousandths of a pixel; the search is good for a tenth."""


@dataclass(frozen=True)
class Found:
    """A picture and the parts in it; `error` where it could not be read or nothing was found."""

    path: Path
    size: tuple[int, int]
    """Height and width; (0, 0) where unknown."""
    matches: tuple[Match, ...] = ()
    error: str | None = None


def segment(
    pictures: PathLike, template: PathLike, output: PathLike, search: Search | None = None, *, force: bool = False
) -> list[Found]:
    """Find the template in every picture; write crops, annotations and pictures with boxes to `output`.

    A picture in which nothing is found is listed with its error, and the others go on; where all fail, the first
    error is raised and nothing is written.
    """
    wanted = search or Search()
    pattern, paths = _whole(read_image(template)), find_images(pictures)
    names = _names(paths)
    with temporary_folder(Path(output), force=force, ours=_is_ours) as folder:
        found = []
        for path, name in track(zip(paths, names, strict=True), "segment", len(paths), unit="pictures"):
            found.append(_one(path, Path(template), pattern, wanted, folder, name))
        if all(item.error for item in found):
            raise InputError(str(found[0].error))
        write_bytes(folder / TABLE, _table(found, names).encode())
        write_json(folder / COCO, _coco(found, names, Path(template).stem))
    return found


def _one(path: Path, template: Path, pattern: Pixels, search: Search, folder: Path, name: str) -> Found:
    size = (0, 0)
    try:
        picture = _whole(read_image(path))
        size = (picture.shape[0], picture.shape[1])
        matches = tuple(find_parts(picture, pattern, search))
    except InputError as problem:
        error = str(problem) if str(problem).startswith(str(path)) else f"{path}, template {template}: {problem}"
        say(error)
        return Found(path, size, error=error)
    write_image(folder / BOXES / f"{name}.png", draw(picture, matches))
    for number, match in enumerate(matches):
        write_image(folder / _crop_name(name, number), crop(picture, match))
    return Found(path, size, matches)


def _whole(pixels: Pixels) -> Pixels:
    """Floating pixels as uint16, which can be written as PNG."""
    return pixels if pixels.dtype.kind == "u" else np.rint(pixels * 65535).astype(np.uint16)


def _crop_name(name: str, number: int) -> str:
    return f"{CROPS}/{name}-{number}.png"


def _names(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each picture: its stem, or, where two share one, with its number before it."""
    stems = [path.stem for path in paths]
    alone = {stem for stem in stems if stems.count(stem) == 1}
    return [stem if stem in alone else f"{number:05d}-{stem}" for number, stem in enumerate(stems)]


def _table(found: Sequence[Found], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item, name in zip(found, names, strict=True):
        for number, m in enumerate(item.matches):
            numbers = (round(v, _DIGITS) for v in (m.score, m.x, m.y, m.width, m.height, m.angle, m.scale))
            writer.writerow([_crop_name(name, number), item.path.name, *numbers])
    return text.getvalue()


def _coco(found: Sequence[Found], names: Sequence[str], category: str) -> dict[str, Any]:
    """COCO's object detection, with score, angle and crop of each part besides."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, (item, name) in enumerate(zip(found, names, strict=True), start=1):
        if item.error:
            continue
        height, width = item.size
        images.append({"id": image, "file_name": item.path.name, "height": height, "width": width})
        for number, match in enumerate(item.matches):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [round(v, _DIGITS) for v in match.bounds],
                    "segmentation": [[round(float(v), _DIGITS) for v in match.corners.ravel()]],
                    "area": round(match.width * match.height, _DIGITS),
                    "iscrowd": 0,
                    "score": round(match.score, _DIGITS),
                    "angle": match.angle,
                    "crop": _crop_name(name, number),
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}


def _is_ours(folder: Path) -> bool:
    """What an earlier segmentation left can be made again."""
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {CROPS, BOXES, TABLE, COCO}
