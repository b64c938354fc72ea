"""Whole slides: what is one, where its tissue lies, and tiles that come from where they say."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normscan.data import slides
from normscan.data.layouts import find_images
from normscan.data.slides import Grid, Slide, Tile, Tiling, is_slide, tissue_mask, tissue_shares
from normscan.errors import ArgumentError, ImageError, InputError, MissingExtraError
from slide_files import GLASS, coded, tissue, write_slide

HEIGHT, WIDTH = 1500, 2100


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 0.5 um/px whose pixels say where they are. Never written to."""
    return write_slide(tmp_path_factory.mktemp("code") / "code.tif", coded(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def stained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with two pieces of tissue. Never written to."""
    return write_slide(tmp_path_factory.mktemp("stained") / "stained.tif", tissue())


def places(grid: Grid) -> list[Tile]:
    return list(grid.tiles(np.ones((len(grid.tops), len(grid.lefts))), 0))


# What is a slide


def test_slides_are_told_from_pictures(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(is_slide(tmp_path / f"x{suffix.upper()}") for suffix in slides.SLIDE_SUFFIXES)
    assert is_slide(code)
    assert not is_slide(tmp_path / "x.png")
    assert cv2.imwrite(str(tmp_path / "plain.tif"), coded(64, 64))
    assert not is_slide(tmp_path / "plain.tif")
    (tmp_path / "text.tiff").write_text("no picture")
    assert not is_slide(tmp_path / "text.tiff")
    single = write_slide(tmp_path / "single.tif", coded(300, 400), levels=1)
    assert not is_slide(single)
    monkeypatch.setattr(slides, "LARGE", 399)
    assert is_slide(single)


def test_a_folder_gives_its_slides_where_they_are_wanted(tmp_path: Path) -> None:
    for name in ("a.svs", "b.NDPI", "c.tif", "d.dat", "e.mrxs"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images(tmp_path)] == ["c.tif"]
    assert [path.name for path in find_images(tmp_path, slides=True)] == ["a.svs", "b.NDPI", "c.tif", "e.mrxs"]
    assert [path.name for path in find_images(tmp_path / "*.svs", slides=True)] == ["a.svs"]
    with pytest.raises(InputError, match=r"found 1 \.svs"):
        find_images(tmp_path / "*.svs")


@pytest.mark.parametrize(
    ("properties", "microns"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.objective-power": "20"}, 0.25),
        ({"tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, 0.5),
        ({"tiff.XResolution": "50800", "tiff.ResolutionUnit": "inch"}, 0.5),
        ({"tiff.XResolution": "1", "tiff.ResolutionUnit": "none", "openslide.objective-power": "40"}, 0.25),
        ({"openslide.mpp-x": "0", "openslide.objective-power": "20"}, 0.5),
        ({"openslide.mpp-x": "nan"}, None),
        ({"openslide.mpp-x": "half"}, None),
        ({}, None),
    ],
)
def test_resolution(properties: dict[str, str], microns: float | None) -> None:
    assert slides._microns(properties) == microns


# Tiles


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_a_tile_shows_the_place_that_it_names(code: Path, overlap: float) -> None:
    truth, seen = coded(HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), bool)
    with Slide(code) as slide:
        assert (slide.width, slide.height, slide.mpp) == (WIDTH, HEIGHT, 0.5)
        grid = slide.grid(Tiling(0.5, overlap), (192, 128))
        assert (grid.level, grid.extent) == (0, (192, 128))
        found = places(grid)
        assert found == sorted(found, key=lambda tile: (tile.y, tile.x))
        for tile in found:
            inside = slice(tile.y, tile.y + 128), slice(tile.x, tile.x + 192)
            np.testing.assert_array_equal(slide.read(grid, tile), truth[inside])
            seen[inside] = True
    assert seen.all()
    assert set(np.diff(grid.lefts)[:-1]) == {192 * (1 - overlap)}
    assert (grid.lefts[-1], grid.tops[-1]) == (WIDTH - 192, HEIGHT - 128)


def test_the_coarsest_level_is_read_that_is_fine_enough(code: Path) -> None:
    truth = coded(HEIGHT, WIDTH)
    halved = cv2.resize(truth, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    with Slide(code) as slide:
        grid = slide.grid(Tiling(1.0), (128, 128))
        assert (grid.level, grid.read, grid.extent) == (1, (128, 128), (256, 256))
        for tile in places(grid):
            x, y = tile.x // 2, tile.y // 2
            np.testing.assert_array_equal(slide.read(grid, tile), halved[y : y + 128, x : x + 128])
        between = slide.grid(Tiling(0.75), (128, 128))
        assert (between.level, between.read) == (0, (192, 192))
        expected = cv2.resize(truth[:192, 192:384], (128, 128), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(slide.read(between, Tile(192, 0, 1)), expected)
        assert [slide.grid(Tiling(mpp), (64, 64)).level for mpp in (0.5, 0.9, 0.995, 1.0, 1.9, 2.0, 5.0)] == [
            0,
            0,
            1,
            1,
            1,
            2,
            2,
        ]
        assert slide.grid(Tiling(None), (64, 64)).read == (64, 64)


def test_a_little_finer_than_the_slide_is_enlarged(code: Path) -> None:
    with Slide(code) as slide:
        grid = slide.grid(Tiling(0.46), (100, 100))
        assert (grid.level, grid.read) == (0, (92, 92))
        assert slide.read(grid, Tile(0, 0, 1)).shape == (100, 100, 3)


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 0.9))
def test_parts_cover_the_whole(whole: int, part: int, overlap: float) -> None:
    part = min(part, whole)
    starts = slides._starts(whole, part, overlap)
    assert (starts[0], starts[-1] + part) == (0, whole)
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= max(1, round(part * (1 - overlap)))).all()


# Tissue


def test_tissue_is_found_and_covered(stained: Path) -> None:
    truth = (tissue().astype(int).max(axis=2) - tissue().min(axis=2)) > 30
    with Slide(stained) as slide:
        mask = tissue_mask(slide.thumbnail(611))  # 4.26 to one: tiles begin within its pixels
        large = cv2.resize(mask.astype(np.uint8), (slide.width, slide.height), interpolation=cv2.INTER_NEAREST) > 0
        assert (large & truth).sum() / (large | truth).sum() > 0.97
        grid = slide.grid(Tiling(0.5), (128, 128))
        shares = tissue_shares(mask, slide, grid)
        seen = np.zeros_like(large)
        for tile in grid.tiles(shares, 1e-9):
            inside = slice(tile.y, tile.y + 128), slice(tile.x, tile.x + 128)
            assert tile.tissue == pytest.approx(large[inside].mean(), abs=0.01)
            seen[inside] = True
        assert not (large & ~seen).any()
        assert (shares == 0).any()
        assert all(tile.tissue >= 0.9 for tile in grid.tiles(shares, 0.9))
        assert len(list(grid.tiles(shares, 0))) == shares.size


def test_glass_ink_and_a_slide_that_is_all_tissue() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1.5, (200, 300, 3))
    glass = np.clip(GLASS + noise, 0, 255).astype(np.uint8)
    assert not tissue_mask(glass).any()
    two_stains = np.where(np.arange(300)[None, :, None] < 150, (205, 130, 170), (170, 60, 120)) + noise
    assert tissue_mask(two_stains.astype(np.uint8)).all()
    glass[50:100, 50:100] = (205, 130, 170)
    glass[120:160, 200:260] = (0, 0, 20)
    found = tissue_mask(glass)
    assert found[55:95, 55:95].all()
    assert not found[120:160, 200:260].any()


def test_what_the_scanner_left_out_is_white(tmp_path: Path) -> None:
    pixels = tissue(1024, 1280)
    pixels[:512, :768] = 0
    with Slide(write_slide(tmp_path / "sparse.tif", pixels, levels=1, sparse=True)) as slide:
        assert (slide.thumbnail(320)[:120, :180] == 255).all()
        assert not tissue_mask(slide.thumbnail(320))[:120, :180].any()
        grid = slide.grid(Tiling(0.5), (256, 256))
        assert (slide.read(grid, Tile(0, 0, 0)) == 255).all()
        across = slide.read(grid, Tile(640, 0, 0))
        assert (across[:, :128] == 255).all()
        np.testing.assert_array_equal(across[:, 128:], pixels[:256, 768:896])


@pytest.mark.parametrize("levels", [1, 3])
def test_a_thumbnail_is_the_slide_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: int) -> None:
    pixels = tissue(900, 1210)
    expected = cv2.resize(pixels, (400, 298), interpolation=cv2.INTER_AREA).astype(int)
    path = write_slide(tmp_path / "a.tif", pixels, levels=levels)
    for block in (slides._BLOCK, 100):
        monkeypatch.setattr(slides, "_BLOCK", block)
        with Slide(path) as slide:
            small = slide.thumbnail(400)
            assert slide.thumbnail(5000).shape == pixels.shape
        assert small.shape == (298, 400, 3)
        assert np.abs(small - expected).mean() < 1.5


# What is refused


def test_what_is_no_slide_is_refused(tmp_path: Path, code: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.svs: no such file"):
        Slide(tmp_path / "gone.svs")
    (tmp_path / "text.svs").write_text("no slide")
    with pytest.raises(ImageError, match=r"text\.svs: OpenSlide knows no slide of this kind"):
        Slide(tmp_path / "text.svs")
    (tmp_path / "half.svs").write_bytes(code.read_bytes()[: code.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"half\.svs: .*copy"):
        Slide(tmp_path / "half.svs")
    page = struct.pack("<HHII", 259, 3, 1, 32946)  # the tag of the compression, deflate
    odd = code.read_bytes().replace(page, struct.pack("<HHII", 259, 3, 1, 99))
    (tmp_path / "odd.svs").write_bytes(odd)
    with pytest.raises(ImageError, match=r"odd\.svs: OpenSlide cannot open it \(.*99.*\); copy"):
        Slide(tmp_path / "odd.svs")


def test_a_damaged_place_is_named(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue(600, 800), levels=1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with Slide(path) as slide, pytest.raises(ImageError, match=r"a\.tif: the slide is damaged near x \d+, y \d+"):
        slide.thumbnail()


def test_an_impossible_resolution_is_refused(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Slide(code) as slide:
        with pytest.raises(ImageError, match=r"has 0\.5 um/px, expected 0\.25 or finer; choose --tile-mpp 0\.5"):
            slide.grid(Tiling(0.25), (64, 64))
        with pytest.raises(ImageError, match=r"a tile is 2048 x 2048 pixels of the slide, which has 2100 x 1500"):
            slide.grid(Tiling(4.0), (256, 256))
        monkeypatch.setattr(slides, "_MOST_READ", 10_000)
        with pytest.raises(ImageError, match="made of 128 x 128 pixels, expected at most 10000"):
            slide.grid(Tiling(0.5), (128, 128))
        assert slide.grid(Tiling(0.5), (100, 100)).read == (100, 100)
    with Slide(write_slide(tmp_path / "a.tif", coded(300, 400), mpp=None)) as slide:
        assert slide.mpp is None
        with pytest.raises(ImageError, match=r"a\.tif: the slide does not say how large its pixels are.*--level-0"):
            slide.grid(Tiling(0.5), (64, 64))
        assert slide.grid(Tiling(None), (64, 64)).level == 0


@pytest.mark.parametrize(
    "wrong", [{"mpp": 0}, {"mpp": float("nan")}, {"overlap": 0.95}, {"overlap": -0.1}, {"tissue": 1.1}]
)
def test_an_impossible_tiling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=rf"tiling: {next(iter(wrong))} is .*, expected"):
        Tiling(**wrong)


def test_a_missing_extra_is_named(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'normscan\[wsi\]'"):
        Slide(code)
    assert not is_slide(code)
    assert is_slide(Path("x.svs"))
