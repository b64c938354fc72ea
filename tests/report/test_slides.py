"""The picture of a scored slide: one look says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from normscan.data.read import read_image
from normscan.data.slides import Tile
from normscan.deploy.slides import ScoredTile, SlideScore
from normscan.report.slides import colour_marks, sentence, write_slide, write_tiles

HEIGHT, WIDTH = 300, 700
HOT = (slice(100, 140), slice(200, 260))


def scored(threshold: float | None = 0.5, high: float = 0.9) -> SlideScore:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[50:250, 100:600] = True
    thumbnail = np.where(mask[..., None], (205, 130, 170), 243).astype(np.uint8)
    heat = np.where(mask, 0.4, np.nan)
    heat[HOT] = high
    tiles = [ScoredTile(Tile(20 * i, 0, 1.0), score, None) for i, score in enumerate([0.4] * 99 + [high])]
    if threshold is not None:
        tiles = [replace(item, decision=item.score > threshold) for item in tiles]
    return SlideScore(high, "max", None, tiles, 300, (20.0, 20.0), threshold, float(mask.mean()), thumbnail, mask, heat)


@pytest.mark.parametrize("threshold", [0.5, None])
def test_where_it_is_anomalous_the_picture_is_bright(tmp_path: Path, threshold: float | None) -> None:
    found = scored(threshold)
    write_slide(tmp_path / "a.png", found, 0.05)
    sheet = read_image(tmp_path / "a.png").astype(int)
    np.testing.assert_array_equal(sheet[:HEIGHT, :WIDTH], found.thumbnail)
    right = sheet[:HEIGHT, -WIDTH:]
    colourful = np.ptp(right, axis=2) > 60
    assert colourful[HOT].all()
    colourful[HOT] = False
    outline = (np.abs(right - (80, 220, 235)) < 3).all(axis=2)
    assert not (colourful & ~outline).any()
    assert outline[48:53, 100:600].any()
    assert np.ptp(right[:40], axis=2).max() == 0  # glass stays grey


def test_the_threshold_is_the_middle_of_the_colours() -> None:
    assert colour_marks(scored(0.5, high=0.55), 0.1) == ([0.3, 0.5, 0.7], [0, 0.5, 1])
    scores, levels = colour_marks(scored(0.5, high=90.0), 0.1)
    assert (scores[1], levels[1]) == (0.5, 0.5)
    assert scores[2] > 0.7
    scores, levels = colour_marks(scored(None), 0.1)
    assert (scores[0], levels) == (0.4, [0, 1])
    assert colour_marks(scored(None, high=0.4), 0.1)[0] == [0.4, 1.4]


def test_a_narrow_slide_has_room_for_the_words(tmp_path: Path) -> None:
    found = scored()
    narrow = replace(found, thumbnail=found.thumbnail[:, :90], mask=found.mask[:, :90], heat=found.heat[:, :90])
    write_slide(tmp_path / "a.png", narrow, 0.05)
    assert read_image(tmp_path / "a.png").shape[1] > 2 * 640


def test_words_and_table(tmp_path: Path) -> None:
    assert sentence(scored()) == (
        "score 0.9 (max); 100 of 300 tiles scored, 1 of them above the threshold; tissue 48% of the slide"
    )
    assert "threshold" not in sentence(scored(None))
    write_tiles(tmp_path / "a.csv", scored())
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert (len(rows), rows[1], rows[100]) == (101, "0,0,20,20,1.0000,0.4,normal", "1980,0,20,20,1.0000,0.9,anomalous")
    write_tiles(tmp_path / "b.csv", scored(None))
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "0,0,20,20,1.0000,0.4,"
