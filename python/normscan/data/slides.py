"""Whole-slide pictures: what they are, where their tissue lies, and the tiles that cover it, read one at a time.

A slide is a pyramid of levels. OpenSlide reads any part of any level, so that nothing here holds more than a thumbnail
and one tile: memory does not grow with the slide. Places and extents are in pixels of level 0, the finest.
OpenSlide (extra `wsi`) is imported when the first slide is opened. Slides that are folders of DICOM files are not read;
of .vms and .vmu slides name the file itself, since their own parts lie beside it as JPEGs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from normscan.errors import ArgumentError, ImageError, MissingExtraError

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
TIFF_SUFFIXES = (".tif", ".tiff")
"""Of slides and of pictures."""
THUMBNAIL = 1536
"""Pixels of a thumbnail's longer side, at most."""
LARGE = 8192
"""A tiled TIFF of one level with a longer side than this is a slide too."""
_ENLARGED = 1.1
"""Scanners of 20x give 0.46 to 0.51 um/px: tiles are enlarged so far, at most, where level 0 is coarser than asked."""
_ROUNDING = 1.01
"""Sides of levels are rounded, so that a level of 4 may say 4.0003."""
_MOST_READ = 1 << 24
"""Pixels of a level in one tile: 64 MiB as they come, in each thread that reads."""
_BLOCK = 2048
"""Pixels of a level, each way, that are read at once for the thumbnail."""
_SATURATION = (8, 40)
"""Of 255: where Otsu's threshold may lie. Below, glass without tissue is split by its noise (8 is CLAM's fixed
threshold); above, a slide that is all tissue is split into its stains."""
_WHITE, _BLACK = 235, 30
"""Pixels whose channels all lie above, or all below, are glass, or ink and the scanner's border."""

Pixels = NDArray[np.uint8]  # [H,W,3] RGB
Mask = NDArray[np.bool_]


def load_openslide() -> Any:
    """The module `openslide` at its first use, or a `MissingExtraError`."""
    try:
        import openslide
    except (ModuleNotFoundError, OSError) as error:  # the Python side, or the library that it loads
        raise MissingExtraError("openslide", "wsi") from error
    return openslide


def is_slide(path: Path) -> bool:
    """True for a slide by its name, or a TIFF that OpenSlide reads and that has several levels or is `LARGE`.

    Without OpenSlide a TIFF is no slide; nor is one that OpenSlide cannot open: the reader of pictures says why.
    """
    suffix = path.suffix.lower()
    if suffix not in TIFF_SUFFIXES:
        return suffix in SLIDE_SUFFIXES
    try:
        with Slide(path) as slide:
            return len(slide.downsamples) > 1 or max(slide.width, slide.height) > LARGE
    except (ImageError, MissingExtraError):
        return False


@dataclass(frozen=True)
class Tiling:
    """How a slide is cut into tiles."""

    mpp: float | None = 0.5
    """Microns per pixel of a tile (10x is 1.0); None: the pixels of level 0, whatever they measure."""
    overlap: float = 0.0
    """Share of a tile's side that it has in common with the next."""
    tissue: float = 0.25
    """Least share of tissue in a tile; 0 takes every tile."""

    def __post_init__(self) -> None:
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ArgumentError(f"tiling: mpp is {self.mpp}, expected microns per pixel, above 0, or None")
        if not 0 <= self.overlap <= 0.9:
            raise ArgumentError(f"tiling: overlap is {self.overlap}, expected a share, 0 to 0.9")
        if not 0 <= self.tissue <= 1:
            raise ArgumentError(f"tiling: tissue is {self.tissue}, expected a share, 0 to 1")


class Tile(NamedTuple):
    """One place of a grid."""

    x: int
    """Of its upper left corner, as y is."""
    y: int
    tissue: float
    """Share of its area."""


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a slide may lie, and how one is read."""

    level: int
    read: tuple[int, int]
    """Width and height in pixels of that level."""
    size: tuple[int, int]
    """Width and height of the tile's own pixels."""
    extent: tuple[float, float]
    """Width and height in pixels of level 0."""
    lefts: NDArray[np.int64]
    tops: NDArray[np.int64]

    def tiles(self, shares: NDArray[np.float64], least: float) -> Iterator[Tile]:
        """Those with at least this share of tissue, row by row; shares [rows, columns]."""
        for row, column in np.argwhere(shares >= least):
            yield Tile(int(self.lefts[column]), int(self.tops[row]), float(shares[row, column]))


class Slide:
    """An open slide; to be closed, or used in a `with`. Several threads may read from it."""

    def __init__(self, path: Path) -> None:
        """Raises ImageError (no such file, not a slide, damaged) and MissingExtraError."""
        openslide = load_openslide()
        self.path, self._errors = path, (openslide.OpenSlideError, OSError)
        if not path.is_file():
            raise ImageError(f"{path}: no such file; it was moved or deleted, or the name is misspelt")
        try:
            if openslide.OpenSlide.detect_format(path) is None:
                raise ImageError(
                    f"{path}: OpenSlide knows no slide of this kind, or a part of it is missing; copy it again, whole"
                )
            self._slide = openslide.OpenSlide(path)
        except self._errors as error:
            raise ImageError(f"{path}: OpenSlide cannot open it ({error}); copy the slide again") from error
        self.width, self.height = self._slide.dimensions
        self.downsamples: tuple[float, ...] = self._slide.level_downsamples
        self.mpp = _microns(self._slide.properties)
        """Microns per pixel of level 0; None where the slide does not say."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading is over."""
        self._slide.close()

    def grid(self, tiling: Tiling, size: tuple[int, int]) -> Grid:
        """All tiles of `size` (width, height) at the tiling's resolution.

        The coarsest level is read that is at least as fine as that. The last tile of a row or column is moved inwards,
        so that every tile is whole and none of the slide is left out. Raises ImageError: unknown resolution, one finer
        than the slide's, a tile larger than the slide.
        """
        scale = self._scale(tiling)
        level = max(i for i, factor in enumerate(self.downsamples) if factor <= max(scale, 1.0) * _ROUNDING)
        factor = self.downsamples[level]
        width, height = (max(1, round(side * scale / factor)) for side in size)
        across, down = self._slide.level_dimensions[level]
        if width > across or height > down:
            raise ImageError(
                f"{self.path}: a tile is {round(width * factor)} x {round(height * factor)} pixels of the slide, which "
                f"has {self.width} x {self.height}; choose a smaller --tile-mpp"
            )
        if width * height > _MOST_READ:
            raise ImageError(
                f"{self.path}: a tile would be made of {width} x {height} pixels, expected at most {_MOST_READ} in "
                f"all: the slide has no level near this resolution; choose a smaller --tile-mpp"
            )
        lefts, tops = (
            np.rint(_starts(whole, part, tiling.overlap) * factor).astype(np.int64)
            for whole, part in ((across, width), (down, height))
        )
        return Grid(level, (width, height), size, (width * factor, height * factor), lefts, tops)

    def read(self, grid: Grid, tile: Tile) -> Pixels:
        """One tile [H,W,3] of the grid's size. Raises ImageError where the slide is damaged there."""
        return _resized(self._region(tile.x, tile.y, grid.level, grid.read), grid.size)

    def thumbnail(self, side: int = THUMBNAIL) -> Pixels:
        """The whole slide [h,w,3], its longer side `side` pixels at most; read in blocks."""
        scale = max(1.0, max(self.width, self.height) / side)
        level = max(i for i, factor in enumerate(self.downsamples) if factor <= scale * _ROUNDING)
        factor = self.downsamples[level]
        width, height = max(1, round(self.width / scale)), max(1, round(self.height / scale))
        across, down = self._slide.level_dimensions[level]
        step = max(1, int(_BLOCK * factor / scale))
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, step):
            for left in range(0, width, step):
                bottom, right = min(top + step, height), min(left + step, width)
                x0, x1 = left * across // width, right * across // width
                y0, y1 = top * down // height, bottom * down // height
                region = self._region(round(x0 * factor), round(y0 * factor), level, (x1 - x0, y1 - y0))
                out[top:bottom, left:right] = _resized(region, (right - left, bottom - top))
        return out

    def _scale(self, tiling: Tiling) -> float:
        """Pixels of level 0 in one of a tile."""
        if tiling.mpp is None:
            return 1.0
        if self.mpp is None:
            raise ImageError(
                f"{self.path}: the slide does not say how large its pixels are, expected microns per pixel or the "
                "objective's power in it; --level-0 takes its pixels as they are"
            )
        if tiling.mpp * _ENLARGED < self.mpp:
            raise ImageError(
                f"{self.path}: the slide has {self.mpp:.4g} um/px, expected {tiling.mpp:.4g} or finer; choose "
                f"--tile-mpp {self.mpp:.4g} or more"
            )
        return tiling.mpp / self.mpp

    def _region(self, x: int, y: int, level: int, size: tuple[int, int]) -> Pixels:
        """Pixels of one level over white, which is what glass looks like."""
        try:
            rgba = np.asarray(self._slide.read_region((x, y), level, size))
        except self._errors as error:
            raise ImageError(f"{self.path}: the slide is damaged near x {x}, y {y} ({error}); copy it again") from error
        rgb, alpha = rgba[:, :, :3], rgba[:, :, 3:]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgb)
        mixed = rgb.astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha) + np.uint16(127)
        return np.asarray(mixed // np.uint16(255), dtype=np.uint8)


def tissue_mask(thumbnail: Pixels) -> Mask:
    """Where a thumbnail [h,w,3] shows tissue: Otsu's threshold on HSV saturation, without near-white and near-black.

    As in CLAM (Lu et al., Nature Biomedical Engineering 2021): a median of 7 pixels, the threshold, a closing of 4.
    """
    import cv2

    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[:, :, 1].copy(), 7)
    threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    found = saturation > np.clip(threshold, *_SATURATION)
    found &= (thumbnail.min(axis=2) <= _WHITE) & (thumbnail.max(axis=2) >= _BLACK)
    closed = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8))
    return np.asarray(closed, dtype=np.bool_)


def tissue_shares(mask: Mask, slide: Slide, grid: Grid) -> NDArray[np.float64]:
    """The share of tissue in each place of a grid [rows, columns]; the mask is the thumbnail's.

    Exact for edges that fall within a pixel of the mask: between its corners a sum over rectangles is bilinear.
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    width, height = (part * side / whole for part, side, whole in _pairs(mask, slide, grid.extent))
    left, top = grid.lefts * (mask.shape[1] / slide.width), grid.tops * (mask.shape[0] / slide.height)
    rows = _between(sums, top + height) - _between(sums, top)
    area = _between(rows.T, left + width) - _between(rows.T, left)
    return np.clip(area.T / (width * height), 0, 1)


def _pairs(mask: Mask, slide: Slide, extent: tuple[float, float]) -> Iterator[tuple[float, int, int]]:
    yield extent[0], mask.shape[1], slide.width
    yield extent[1], mask.shape[0], slide.height


def _between(sums: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of `sums` at fractional places, linear between neighbours."""
    places = np.clip(places, 0, len(sums) - 1)
    below = np.minimum(places.astype(np.intp), len(sums) - 2)
    share = (places - below)[:, None]
    return np.asarray(sums[below] * (1 - share) + sums[below + 1] * share)


def _starts(whole: int, part: int, overlap: float) -> NDArray[np.int64]:
    """Where parts begin that cover the whole; the last is moved inwards."""
    step = max(1, round(part * (1 - overlap)))
    return np.append(np.arange(0, whole - part, step), whole - part)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    import cv2

    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    smaller = pixels.shape[1] >= size[0] and pixels.shape[0] >= size[1]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.uint8)


def _microns(properties: Any) -> float | None:
    """Microns per pixel: as OpenSlide says, else the TIFF's resolution, else 10 over the objective's power."""
    unit = {"centimeter": 1e4, "inch": 25_400.0}.get(str(properties.get("tiff.ResolutionUnit", "")).lower())
    per_unit = _positive(properties.get("tiff.XResolution"))
    power = _positive(properties.get("openslide.objective-power"))
    return (
        _positive(properties.get("openslide.mpp-x"))
        or (unit / per_unit if unit and per_unit else None)
        or (10 / power if power else None)
    )


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
