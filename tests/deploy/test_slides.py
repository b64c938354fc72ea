"""A slide's tiles through a session: the same scores as pictures, an anomaly where it is, nothing kept."""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import normscan
from normscan.data.read import write_image
from normscan.data.slides import Slide, Tiling
from normscan.deploy.session import Session
from normscan.deploy.slides import SlideScore, score_slide, slide_score
from normscan.errors import ArgumentError, ImageError, MissingExtraError
from normscan.scoring.calibrate import Calibration
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import Group, Input, ScoringSpec, Term
from slide_files import GLASS, tissue, write_slide

SIDE = 64
THRESHOLD = 0.5
PLANTED = (slice(800, 1000), slice(560, 860))  # rows, columns


class Darkness:
    """An engine whose one output is how dark a tile is."""

    name, device = "darkness", "cpu"

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"value": (1 - x.mean(axis=(1, 2, 3)))[:, None].astype(np.float32)}

    def fingerprint(self) -> dict[str, str]:
        return {"engine": self.name}


def session(group: Group | None = None, engine: Darkness | None = None, *, calibrated: bool = True) -> Session:
    calibration = Calibration("order_statistic", THRESHOLD, 60, 0.95, (0.9, 0.99)) if calibrated else None
    term = Term("value", ("value",), per="vector")
    spec = ScoringSpec("test", Input(SIDE, SIDE), (term,), group=group, calibration=calibration)
    return Session(engine or Darkness(), Scorer(spec, {}), {"spread": 0.05, "map_scale": (0, 1)}, [])


def picture() -> np.ndarray:
    pixels = tissue()
    pixels[PLANTED] = (90, 60, 70)
    return pixels


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue with a dark place. Never written to."""
    return write_slide(tmp_path_factory.mktemp("slide") / "slide.tif", picture())


def heat_of(found: SlideScore, height: int, width: int) -> np.ndarray:
    """The heat map from level 0: sums and numbers of the scores of each pixel there, both made small."""
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for item in found.tiles:
        inside = slice(item.tile.y, item.tile.y + SIDE), slice(item.tile.x, item.tile.x + SIDE)
        total[inside] += item.score
        count[inside] += 1
    total, count = (cv2.resize(a, found.heat.shape[::-1], interpolation=cv2.INTER_AREA) for a in (total, count))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 1e-3)


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_an_anomaly_is_found_where_it_is(slide: Path, overlap: float) -> None:
    found = score_slide(session(), slide, Tiling(0.5, overlap))
    pixels = picture()
    for item in found.tiles:
        tile = pixels[item.tile.y : item.tile.y + SIDE, item.tile.x : item.tile.x + SIDE]
        assert item.score == pytest.approx(1 - tile.mean() / 255, abs=1e-5)
        assert item.decision == (item.score > THRESHOLD)
    best = max(found.tiles, key=lambda item: item.score).tile
    assert PLANTED[0].start <= best.y <= PLANTED[0].stop - SIDE
    assert PLANTED[1].start <= best.x <= PLANTED[1].stop - SIDE
    assert found.anomalous == sum(item.score > THRESHOLD for item in found.tiles) > 0
    assert (found.threshold, found.places > len(found.tiles)) == (THRESHOLD, True)
    hot = np.argwhere(found.heat > THRESHOLD) * (pixels.shape[0] / found.heat.shape[0])
    assert (hot.min(axis=0) >= (PLANTED[0].start - SIDE, PLANTED[1].start - SIDE)).all()
    assert (hot.max(axis=0) <= (PLANTED[0].stop + SIDE, PLANTED[1].stop + SIDE)).all()


@pytest.mark.parametrize("overlap", [0, 0.3])
def test_the_heat_map_is_the_mean_of_the_tiles(slide: Path, overlap: float) -> None:
    found = score_slide(session(), slide, Tiling(0.5, overlap))
    expected = heat_of(found, *picture().shape[:2])
    known = np.isfinite(expected)
    np.testing.assert_allclose(found.heat[known], expected[known], atol=1e-4)
    assert np.mean(np.isfinite(found.heat) == known) > 0.999


def test_a_tile_scores_as_its_picture_does(bundle: Path, tmp_path: Path) -> None:
    real = normscan.load(bundle)
    path = write_slide(tmp_path / "a.tif", tissue(400, 500))
    found = score_slide(real, path, Tiling(1.0), batch_size=7)
    assert len(found.tiles) > 20
    size = real.scorer.spec.input
    with Slide(path) as opened:
        grid = opened.grid(Tiling(1.0), (size.width, size.height))
        for i, item in enumerate(found.tiles):
            write_image(tmp_path / f"{i}.png", opened.read(grid, item.tile))
    for i, item in enumerate(found.tiles):
        alone = real.score(tmp_path / f"{i}.png")
        assert item.score == pytest.approx(alone.score, abs=1e-4 * real.spread)
        assert item.decision == alone.decision


@pytest.mark.parametrize(
    "group", [Group("max"), Group("mean"), Group({"fraction": 0.4}), Group({"topk": 0.5}, 0.2, 0.9), None]
)
def test_the_slide_s_score_follows_the_spec(slide: Path, group: Group | None) -> None:
    found = score_slide(session(group), slide)
    scores = np.sort([item.score for item in found.tiles])
    expected = {
        "max": (scores[-1], "max, by the model"),
        "mean": (scores.mean(), "mean, by the model"),
        "fraction": ((scores > 0.4).mean(), "share above 0.4, by the model"),
        "topk": (scores[-math.ceil(len(scores) / 2) :].mean(), "mean of the highest 50%, by the model"),
        None: (scores[-round(len(scores) / 10) :].mean(), "mean of the highest tenth"),
    }[group and group.rule[0]]
    assert found.score == pytest.approx(expected[0])
    assert found.rule == expected[1]
    assert found.density == (group and group.density(found.score))
    assert slide_score(session(), [3.0, 1.0, 2.0])[0] == 3.0


def test_without_a_threshold_nothing_is_decided(slide: Path) -> None:
    found = score_slide(session(calibrated=False), slide)
    assert (found.threshold, found.anomalous, found.tiles[0].decision) == (None, None, None)


def test_scores_do_not_depend_on_batches_or_threads(slide: Path) -> None:
    one, many = (score_slide(session(), slide, batch_size=b, workers=w) for b, w in ((1, 1), (33, 4)))
    assert [item.tile for item in one.tiles] == [item.tile for item in many.tiles]
    np.testing.assert_allclose([i.score for i in one.tiles], [i.score for i in many.tiles], atol=1e-6)


def test_no_tissue(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "glass.tif", np.full((600, 800, 3), GLASS, np.uint8))
    with pytest.raises(ImageError, match=r"glass\.tif: found no tile with 25% tissue or more \(most in one: 0\.0%"):
        score_slide(session(), path)
    assert len(score_slide(session(), path, Tiling(tissue=0)).tiles) == 10 * 13


def test_a_damaged_place_gives_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The damage is in level 0, the thumbnail from level 1: it is met among the tiles, while threads read ahead."""
    path = write_slide(tmp_path / "a.tif", tissue(2048, 3200))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    reading: list[str] = []

    def close(slide: Slide) -> None:
        reading.extend(thread.name for thread in threading.enumerate() if thread.name.startswith("normscan-read"))
        slide._slide.close()

    monkeypatch.setattr(Slide, "close", close)
    with pytest.raises(ImageError, match=r"a\.tif: the slide is damaged near x \d+, y \d+"):
        score_slide(session(), path, batch_size=2)
    assert reading == []  # a thread would read from a slide that is closed


def test_a_score_that_is_not_finite_names_the_place(slide: Path) -> None:
    class Broken(Darkness):
        def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
            return {"value": np.full((len(x), 1), np.nan, np.float32)}

    with pytest.raises(ImageError, match=r"slide\.tif, Tile\(x=\d+, y=\d+.*the score is nan"):
        score_slide(session(engine=Broken()), slide)


def test_a_missing_extra_is_named(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingExtraError, match=r"normscan\[wsi\]"):
        score_slide(session(), slide)


def test_reading_is_ahead_by_two_batches_at_most() -> None:
    done, most, lock = 0, 0, threading.Lock()
    started = 0

    def read(item: int) -> np.ndarray:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - done)
        return np.full((SIDE, SIDE, 3), item % 256, np.uint8)

    stream = session().stream_pixels(range(200), read, batch_size=4, workers=3)
    for item, result in stream:
        assert isinstance(result, normscan.Result)
        assert result.score == pytest.approx(1 - item / 255, abs=1e-5)
        done += 1
        if item == 100:
            break
    stream.close()
    assert most <= 4 * 3  # two batches ahead, and the one that is being handed out
    assert started <= 101 + 4 * 3
    with pytest.raises(ArgumentError, match="batch_size 0"):
        session().stream_pixels([], read, batch_size=0)
