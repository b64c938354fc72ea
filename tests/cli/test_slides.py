"""`normscan score` on whole slides, alone and among pictures."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normscan.data.read import read_image, write_image
from slide_files import GLASS, tissue, write_slide

Call = Callable[..., tuple[int, str, str]]


def table(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray) -> Path:
    """A slide, the same in a sub-folder, and a picture."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    write_image(tmp_path / "in" / "picture.png", picture)
    write_slide(tmp_path / "in" / "slide.tif", tissue(400, 500))
    (tmp_path / "in" / "more" / "slide.tif").write_bytes((tmp_path / "in" / "slide.tif").read_bytes())
    return tmp_path / "in"


def test_slides_and_pictures_in_one_table(call: Call, bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = call("score", bundle, "-i", folder, "-o", out, "--tile-mpp", 1.0)
    assert code == 0, err
    rows = {row["file"]: row for row in table(out / "scores.csv")}
    assert list(rows) == ["picture.png", "more/slide.tif", "slide.tif"]
    assert rows["slide.tif"]["score"] == rows["more/slide.tif"]["score"]
    assert (rows["slide.tif"]["decision"], rows["slide.tif"]["threshold"], rows["slide.tif"]["error"]) == ("", "", "")
    assert rows["picture.png"]["decision"] in ("normal", "anomalous")
    assert "slide.tif: score" in err
    assert "(mean of the highest tenth)" in err
    tiles = table(out / "slides" / "slide.tif.tiles.csv")
    assert list(tiles[0]) == ["x", "y", "width", "height", "tissue", "score", "decision"]
    assert {(row["width"], row["height"]) for row in tiles} == {("32", "32")}  # 16 pixels at half the resolution
    assert {row["decision"] for row in tiles} <= {"normal", "anomalous"}
    highest = np.sort([float(row["score"]) for row in tiles])[-round(len(tiles) / 10) :]
    assert float(rows["slide.tif"]["score"]) == pytest.approx(highest.mean())
    assert read_image(out / "slides" / "more" / "slide.tif.png").shape[2] == 3
    assert {path.name for path in (out / "slides").iterdir()} == {"slide.tif.png", "slide.tif.tiles.csv", "more"}


def test_without_a_folder_nothing_is_written(call: Call, bundle: Path, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    code, out, _ = call("score", bundle, "-i", folder / "slide.tif", "--magnification", 10, "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert (row["file"], row["decision"], row["threshold"]) == ("slide.tif", None, None)
    code, out, _ = call("score", bundle, "-i", folder / "slide.tif", "--tile-mpp", 1.0, "--json")
    assert json.loads(out)["rows"] == [row]
    assert sorted(folder.rglob("*")) == before


def test_one_bad_slide_does_not_stop_the_others(call: Call, bundle: Path, folder: Path, tmp_path: Path) -> None:
    whole = (folder / "slide.tif").read_bytes()
    (folder / "half.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "text.ndpi").write_text("no slide")
    write_slide(folder / "glass.tif", np.full((400, 500, 3), GLASS, np.uint8))
    write_slide(folder / "small.tif", tissue(40, 60), levels=2)
    write_slide(folder / "unknown.tif", tissue(400, 500), mpp=None)
    code, out, err = call("score", bundle, "-i", folder, "-o", tmp_path / "out", "--tile-mpp", 2.0, "--json")
    assert code == 4
    assert json.loads(out)["failed"] == 5
    rows = {row["file"]: row["error"] for row in table(tmp_path / "out" / "scores.csv")}
    expected = {
        "half.svs": "copy",
        "text.ndpi": "OpenSlide knows no slide of this kind",
        "glass.tif": "lower --tissue",
        "small.tif": "a tile is 64 x 64 pixels of the slide, which has 60 x 40",
        "unknown.tif": "--level-0 takes its pixels as they are",
    }
    for name, text in expected.items():
        assert text in rows[name]
        assert name in rows[name]
        assert rows[name] in err
    assert [name for name, error in rows.items() if not error] == ["picture.png", "more/slide.tif", "slide.tif"]
    written = {path.name for path in (tmp_path / "out" / "slides").rglob("*") if path.is_file()}
    assert written == {"slide.tif.png", "slide.tif.tiles.csv"}
    assert call("score", bundle, "-i", folder / "text.ndpi")[0] == 3


def test_level_0_takes_a_slide_of_unknown_resolution(call: Call, bundle: Path, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "unknown.tif", tissue(400, 500), mpp=None)
    code, _, err = call("score", bundle, "-i", path)
    assert code == 3
    assert "does not say how large its pixels are" in err
    code, out, _ = call("score", bundle, "-i", path, "--level-0", "--json")
    assert (code, json.loads(out)["failed"]) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [("--level-0", "--tile-mpp", 1), ("--level-0", "--magnification", 1), ("--tile-mpp", 1, "--magnification", 1)],
)
def test_one_resolution_is_enough(call: Call, bundle: Path, folder: Path, options: tuple[object, ...]) -> None:
    code, _, err = call("score", bundle, "-i", folder, *options)
    assert code == 2
    assert "give one of them" in err


def test_overlap_and_tissue(call: Call, bundle: Path, folder: Path, tmp_path: Path) -> None:
    def tiles(name: str, *options: object) -> int:
        arguments = ("-i", folder / "slide.tif", "-o", tmp_path / name, "--tile-mpp", 2, *options)
        assert call("score", bundle, *arguments)[0] == 0
        return len(table(tmp_path / name / "slides" / "slide.tif.tiles.csv"))

    every, usual, full = tiles("a", "--tissue", 0), tiles("b"), tiles("c", "--tissue", 1)
    assert every == 8 * 7 > usual > full > 0
    assert tiles("d", "--overlap", 0.5) > 3 * usual


def test_the_output_may_not_lie_among_the_slides(call: Call, bundle: Path, folder: Path) -> None:
    assert call("score", bundle, "-i", folder, "-o", folder / "out", "--tile-mpp", 2)[0] == 0
    code, _, err = call("score", bundle, "-i", folder, "-o", folder / "out", "--tile-mpp", 2, "--force")
    assert code == 2
    assert "lies among the pictures" in err


def test_a_missing_extra_is_named(
    call: Call, bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (folder / "slide.svs").touch()
    code, _, err = call("score", bundle, "-i", folder, "-o", tmp_path / "out")
    assert code == 1
    assert "pip install 'normscan[wsi]'" in err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_a_tiff_is_a_picture_and_that_is_said(bundle: Path, folder: Path) -> None:
    code = (
        "import sys\nfrom importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *a: None if name == 'openslide' else find(name, *a)\n"
        "from normscan.cli.__main__ import main\nmain()"
    )
    arguments = ("score", str(bundle), "-i", str(folder / "slide.tif"))
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "TIFFs are read as pictures; if any are slides: pip install 'normscan[wsi]'" in done.stderr


@pytest.mark.parametrize("limit", [600, 20_000])
def test_a_full_disk_leaves_nothing_half_written(bundle: Path, folder: Path, tmp_path: Path, limit: int) -> None:
    """600 bytes stop the table of tiles, 20,000 the picture."""
    arguments = ("score", bundle, "-i", folder / "slide.tif", "-o", tmp_path / "out", "--tile-mpp", "1")
    done = subprocess.run(
        [sys.executable, "-m", "normscan.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 3, done.stderr
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == ({"slide.tif.tiles.csv"} if limit == 20_000 else set())
