"""A scored slide to look at and to go on with: a picture of where, and the table of its tiles."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from normscan.data.read import write_image
from normscan.deploy.slides import SlideScore
from normscan.files import temporary_file
from normscan.report.pictures import Picture, heat, outline, scale_of

COLUMNS = ("x", "y", "width", "height", "tissue", "score", "decision")
LINE = 1 / 500
"""Width of the outline, of the longer side."""
NARROWEST = 640
"""Pixels of a panel: room for the words."""
_CYAN = (80, 220, 235)


def write_tiles(path: Path, found: SlideScore) -> None:
    """A row for each tile: place and extent in pixels of level 0, share of tissue, score and decision."""
    width, height = (round(side) for side in found.extent)
    with temporary_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for item in found.tiles:
            tile, decision = item.tile, {None: None, True: "anomalous", False: "normal"}[item.decision]
            table.writerow((tile.x, tile.y, width, height, f"{tile.tissue:.4f}", item.score, decision))


def sentence(found: SlideScore) -> str:
    """The slide's score in words."""
    above = f", {found.anomalous} of them above the threshold" if found.anomalous is not None else ""
    density = "" if found.density is None else f"{found.density}: "
    return (
        f"{density}score {found.score:.4g} ({found.rule}); {len(found.tiles)} of {found.places} tiles scored{above}; "
        f"tissue {found.tissue:.0%} of the slide"
    )


def write_slide(path: Path, found: SlideScore, spread: float) -> None:
    """A PNG: the slide; beside it the same in grey, its tissue outlined, under the heat map; below, words and scale.

    spread: of the calibration scores; see `colour_marks`.
    """
    scores, levels = colour_marks(found, spread)
    right = outline(_coloured(found, scores, levels), found.mask, LINE)
    height, width = right.shape[:2]
    side = max(width, NARROWEST)
    unit = side // 48
    sheet = np.full((height + 11 * unit // 2, 2 * side + unit, 3), 255, np.uint8)
    sheet[:height, :width] = found.thumbnail
    sheet[:height, side + unit : side + unit + width] = right
    below = height + unit
    for line, text in enumerate(sentence(found).split("; ")):
        _write(sheet, text, (unit, unit, side), below + line * 4 * unit // 3)
    bar = heat(np.linspace(0, 1, side)[None], 0, 1)
    sheet[below : below + unit, side + unit :] = bar
    for score, level in zip(scores, levels, strict=True):
        text = f"threshold {score:.4g}" if score == found.threshold else f"{score:.4g}"
        left, right_end = side + unit, 2 * side + unit
        _write(sheet, text, (left + round(level * side), left, right_end), below + 3 * unit // 2)
    if found.threshold is not None:
        middle = side + unit + side // 2
        sheet[below - unit // 4 : below + 5 * unit // 4, middle - 2 : middle + 2] = _CYAN
    write_image(path, sheet)


def colour_marks(found: SlideScore, spread: float) -> tuple[list[float], list[float]]:
    """Scores and their places on the table of colours, 0 to 1; between them it is linear.

    With a threshold that is the middle, however far scores go, so that a colour says what the decision was. The lower
    half is two spreads wide, where most normal tiles lie. Without one the colours go over the slide's own scores, and
    say where, not how much.
    """
    low, high = scale_of([np.asarray([[item.score for item in found.tiles]])])
    if (middle := found.threshold) is None:
        return [low, high if high > low else low + 1], [0, 1]
    return [middle - 2 * spread, middle, max(middle + 2 * spread, high)], [0, 0.5, 1]


def _coloured(found: SlideScore, scores: list[float], levels: list[float]) -> Picture:
    """The thumbnail in grey under its heat map: the higher a score, the less shows through."""
    level = np.interp(np.nan_to_num(found.heat, nan=scores[0]), scores, levels)
    alpha = (0.9 * level**2 * (3 - 2 * level))[..., None]  # soft below the middle, strong above
    grey = (found.thumbnail @ (0.299, 0.587, 0.114))[..., None]
    return np.asarray(np.rint(grey * (1 - alpha) + heat(level, 0, 1) * alpha), np.uint8)


def _write(sheet: Picture, text: str, place: tuple[int, int, int], top: int) -> None:
    """Black words with their upper edge at `top`, centred at the first of `place`, between the other two."""
    import cv2

    middle, low, high = place
    size, font = (high - low) / 1500, cv2.FONT_HERSHEY_SIMPLEX
    (length, tall), _ = cv2.getTextSize(text, font, size, 1)
    left = int(np.clip(middle - length // 2, low, max(low, high - length)))
    cv2.putText(sheet, text, (left, top + tall), font, size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)
