"""Segmentation: parts planted at known places are found there, and what cannot be found is told."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normscan.data.read import read_image, write_image
from normscan.data.segment import Match, NoMatchError, Search, crop, find_parts, segment
from normscan.data.segment.match import shared
from normscan.errors import ArgumentError, InputError, UsageError

WIDTH, HEIGHT = 26, 20
WAVES = np.random.default_rng(4).uniform([-0.5, -0.5, 0, 0.3], [0.5, 0.5, 6, 1], (12, 4))


def part(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The part's brightness at any place, from its centre: what can be sampled between pixels, exactly."""
    waves = [a * np.cos(u * x + v * y + phase) for u, v, phase, a in WAVES]
    return 0.5 + 0.4 * np.tanh(np.sum(waves, axis=0) / 2)


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y of pixel centres."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return x, y


def bytes_of(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 255).astype(np.uint8)


def template() -> np.ndarray:
    x, y = grid(HEIGHT, WIDTH)
    return bytes_of(part(x - WIDTH / 2, y - HEIGHT / 2))


def scene(*planted: Match, size: int = 110, seed: int = 0) -> np.ndarray:
    """Smooth noise, and the part wherever it was planted."""
    noise = np.random.default_rng(seed).random((size // 4, size // 4))
    values = np.clip(0.2 + 0.5 * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    x, y = grid(size, size)
    for m in planted:
        c, s = math.cos(math.radians(m.angle)), math.sin(math.radians(m.angle))
        dx, dy = (x - m.x) / m.scale, (y - m.y) / m.scale
        u, v = c * dx - s * dy, s * dx + c * dy  # turned back, clockwise as seen
        inside = (abs(u) <= WIDTH / 2) & (abs(v) <= HEIGHT / 2)
        values[inside] = part(u, v)[inside]
    return bytes_of(values)


def at(x: float, y: float, angle: float = 0.0, scale: float = 1.0) -> Match:
    return Match(1.0, x, y, WIDTH * scale, HEIGHT * scale, angle, scale)


@given(x=st.floats(25, 85), y=st.floats(25, 85), angle=st.floats(-12, 12), scale=st.sampled_from([0.9, 1.0, 1.2]))
def test_planted_parts_are_found_between_pixels_and_turned(x: float, y: float, angle: float, scale: float) -> None:
    search = Search(scales=(0.9, 1.0, 1.2), angles=(-10.0, -5.0, 0.0, 5.0, 10.0))
    best = find_parts(scene(at(x, y, angle, scale)), template(), search)[0]
    assert abs(best.x - x) <= 0.25
    assert abs(best.y - y) <= 0.25
    assert abs(best.angle - angle) <= 5
    assert best.scale == scale


@given(x=st.floats(20, 90), y=st.floats(20, 90))
def test_an_upright_part_is_found_within_a_tenth(x: float, y: float) -> None:
    best = find_parts(scene(at(x, y)), template(), Search())[0]
    assert (best.x, best.y) == pytest.approx((x, y), abs=0.1)
    assert 0.95 < best.score <= 1


@pytest.mark.parametrize("angle", [90.0, 180.0, -90.0])
def test_right_angles_lose_no_pixel(angle: float) -> None:
    best = find_parts(scene(at(50, 55, angle)), template(), Search(angles=(0.0, 90.0, 180.0, -90.0)))[0]
    assert best.angle == angle
    assert (best.x, best.y) == pytest.approx((50, 55), abs=0.1)
    assert best.score > 0.98


def test_without_rotation_it_is_opencv_s_correlation() -> None:
    picture = scene(at(40, 60))
    expected = cv2.matchTemplate(picture, template(), cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(expected.argmax(), expected.shape)
    best = find_parts(picture, template(), Search())[0]
    assert best.score == pytest.approx(expected.max(), abs=2e-3)  # the parabola's vertex lies a little above
    assert (best.x, best.y) == pytest.approx((column + WIDTH / 2, row + HEIGHT / 2), abs=0.5)


def test_several_parts_best_first_and_no_more_than_asked() -> None:
    places = [(20, 20), (70, 30), (40, 80)]
    picture = scene(*(at(x, y) for x, y in places))
    found = find_parts(picture, template(), Search(threshold=0.9))
    assert sorted((round(m.x), round(m.y)) for m in found) == sorted(places)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    assert len(find_parts(picture, template(), Search(limit=2))) == 2


def test_parts_may_touch_but_not_overlap() -> None:
    many = find_parts(scene(at(40, 40), at(40 + WIDTH, 40)), template(), Search(threshold=0.3, limit=50))
    assert all(shared(a, b) <= 0.25 for i, a in enumerate(many) for b in many[:i])
    assert {(40, 40), (40 + WIDTH, 40)} <= {(round(m.x), round(m.y)) for m in many}


def test_overlap_of_boxes() -> None:
    one = Match(1, 10, 10, 10, 4)
    assert shared(one, one) == pytest.approx(1)
    assert shared(one, Match(1, 15, 10, 10, 4)) == pytest.approx(1 / 3)
    assert shared(one, Match(1, 10, 10, 10, 4, angle=90)) == pytest.approx(16 / 64)
    assert shared(one, Match(1, 40, 10, 10, 4)) == 0
    assert Match(1, 10, 10, 10, 4, angle=90).corners == pytest.approx(np.array([[8, 15], [8, 5], [12, 5], [12, 15]]))


def test_flat_surroundings_are_no_match() -> None:
    """Saturated white around a part: a window that shows nothing correlates with nothing, turned or not."""
    picture = np.full((80, 80), 255, np.uint8)
    x, y = 40 - WIDTH // 2, 40 - HEIGHT // 2
    picture[y : y + HEIGHT, x : x + WIDTH] = template()
    found = find_parts(picture, template(), Search(threshold=0.05, limit=50, angles=(0.0, 30.0)))
    assert (found[0].x, found[0].y) == pytest.approx((40, 40), abs=0.1)
    assert all(abs(m.x - 40) < WIDTH and abs(m.y - 40) < WIDTH for m in found)  # none where all is white


def test_grey_deep_and_colour_go_together() -> None:
    picture = scene(at(50, 50))
    for other in (
        np.repeat(picture[..., None], 3, 2),
        picture.astype(np.uint16) * 257,
        picture.astype(np.float32) / 255,
    ):
        best = find_parts(other, template(), Search())[0]
        assert (best.x, best.y) == pytest.approx((50, 50), abs=0.1)


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_a_crop_is_the_template_again(angle: float) -> None:
    picture = scene(at(52.0, 47.0, angle))
    found = crop(picture, find_parts(picture, template(), Search(angles=(angle,)))[0]).astype(float)
    assert found.shape == (HEIGHT, WIDTH)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(found[inner] - template()[inner]).mean() < (0.5 if angle == 0 else 3.0)


# ---- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "search", "message"),
    [
        (
            np.zeros((30, 200), np.uint8) + np.arange(200, dtype=np.uint8),
            {},
            r"template \(200 x 30 .* larger than the picture \(110 x 110\)",
        ),
        (template(), {"scales": (6.0,)}, "scales 6.* is larger than the"),
        (np.full((9, 9), 70, np.uint8), {}, "template's pixels are all alike"),
        (
            np.random.default_rng(1).integers(0, 256, (20, 20), np.uint8),
            {},
            r"best score is 0\.\d+, below the threshold of 0.5",
        ),
    ],
)
def test_what_cannot_be_found_is_told(pattern: np.ndarray, search: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_parts(scene(at(50, 50)), pattern, Search(**search))


def test_no_match_in_a_blank_picture() -> None:
    with pytest.raises(NoMatchError, match=r"best score is 0\.000"):
        find_parts(np.full((60, 60), 255, np.uint8), template(), Search())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"threshold": 0.0}, "threshold"),
        ({"overlap": 1.0}, "overlap"),
        ({"limit": 0}, "limit"),
        ({"scales": ()}, "scales"),
        ({"scales": (0.01,)}, "scales"),
        ({"angles": (math.nan,)}, "angles"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"segment: {name}"):
        Search(**changes)


# ---- what is written ----------------------------------------------------------------------------------------------


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    write_image(folder / "one.png", scene(at(30, 30), at(70, 75)))
    write_image(folder / "two.png", scene(at(50.5, 40.25), seed=1))
    write_image(tmp_path / "part.png", template())
    return folder


def test_crops_tables_and_boxes(shots: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = segment(shots, tmp_path / "part.png", out, Search(threshold=0.8))
    assert [len(item.matches) for item in found] == [2, 1]
    rows = list(csv.DictReader((out / "annotations.csv").read_text().splitlines()))
    coco = json.loads((out / "annotations.json").read_text())
    assert [row["picture"] for row in rows] == ["one.png", "one.png", "two.png"]
    assert (float(rows[2]["x"]), float(rows[2]["y"])) == pytest.approx((50.5, 40.25), abs=0.1)
    assert coco["categories"] == [{"id": 1, "name": "part"}]
    assert [image["file_name"] for image in coco["images"]] == ["one.png", "two.png"]
    for row, annotation in zip(rows, coco["annotations"], strict=True):
        assert read_image(out / row["crop"]).shape == (HEIGHT, WIDTH)
        assert annotation["crop"] == row["crop"]
        left, top, width, height = annotation["bbox"]
        assert (left + width / 2, top + height / 2) == pytest.approx((float(row["x"]), float(row["y"])), abs=1e-3)
        assert annotation["area"] == WIDTH * HEIGHT
    boxes = read_image(out / "boxes" / "one.png")
    assert boxes.shape == (110, 110, 3)
    assert (boxes != np.repeat(read_image(shots / "one.png")[..., None], 3, 2)).any()


def test_a_picture_without_match_is_listed_and_all_of_them_are_an_error(shots: Path, tmp_path: Path) -> None:
    write_image(shots / "three.png", scene(seed=2))
    found = segment(shots, tmp_path / "part.png", tmp_path / "out", Search(threshold=0.8))
    assert [item.error is None for item in found] == [True, False, True]
    assert "three.png" in str(found[1].error)
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["one.png", "two.png"]
    with pytest.raises(InputError, match=r"three\.png, template .*part\.png: no match: the best score is 0\.\d+"):
        segment(shots / "three.png", tmp_path / "part.png", tmp_path / "none", Search(threshold=0.8))
    assert not (tmp_path / "none").exists()


def test_pictures_of_one_name_do_not_overwrite_each_other(shots: Path, tmp_path: Path) -> None:
    write_image(shots / "more" / "one.png", scene(at(40, 40), seed=5))
    found = segment(shots, tmp_path / "part.png", tmp_path / "out", Search(threshold=0.8))
    assert len(list((tmp_path / "out" / "crops").iterdir())) == sum(len(item.matches) for item in found) == 4


def test_an_existing_output_is_kept(shots: Path, tmp_path: Path) -> None:
    for _ in range(2):
        segment(shots, tmp_path / "part.png", tmp_path / "out", force=True)
    with pytest.raises(UsageError, match="--force"):
        segment(shots, tmp_path / "part.png", tmp_path / "out")
    (tmp_path / "out" / "note.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        segment(shots, tmp_path / "part.png", tmp_path / "out", force=True)
