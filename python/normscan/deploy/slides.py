"""Scoring a whole slide: its tiles one after another through a session, their scores as one, and where they lie.

Of a tile only its place and score are kept, and what it adds to a heat map of the thumbnail's size.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normscan.data.slides import Grid, Mask, Pixels, Slide, Tile, Tiling, tissue_mask, tissue_shares
from normscan.deploy.session import Session
from normscan.errors import ImageError, InputError
from normscan.progress import track
from normscan.scoring.spec import Density

HIGHEST = 0.1
"""Share of the tiles whose mean is the slide's score, where the spec has no rule for groups."""


@dataclass(frozen=True)
class ScoredTile:
    """A tile and what the session says of it."""

    tile: Tile
    score: float
    decision: bool | None


@dataclass(frozen=True)
class SlideScore:
    """What a session says of one slide."""

    score: float
    """Of the whole slide, by `rule`."""
    rule: str
    """How the tiles' scores became one, in words."""
    density: Density | None
    """What the score says; None where the model has no thresholds for patients."""
    tiles: list[ScoredTile]
    """Row by row."""
    places: int
    """Tiles that the slide has, with tissue or without."""
    extent: tuple[float, float]
    """Width and height of a tile in pixels of level 0."""
    threshold: float | None
    """Of the tiles' decisions."""
    tissue: float
    """Share of the slide."""
    thumbnail: Pixels
    mask: Mask
    """The thumbnail's tissue."""
    heat: NDArray[np.float64]
    """The tiles' scores on the thumbnail, their mean where they overlap, NaN where there is none."""

    @property
    def anomalous(self) -> int | None:
        """Tiles above the threshold; None without one."""
        return None if self.threshold is None else sum(item.decision is True for item in self.tiles)


def score_slide(
    session: Session, path: Path, tiling: Tiling | None = None, *, batch_size: int = 16, workers: int = 2
) -> SlideScore:
    """Score the tissue of a slide, in tiles of the network's input size; memory does not grow with the slide.

    Errors: `ImageError` (damaged, no tissue, resolution unknown or too coarse, smaller than a tile; a damaged place
    gives no score at all), `MissingExtraError`.
    """
    tiling = tiling or Tiling()
    size = session.scorer.spec.input
    with Slide(path) as slide:
        grid = slide.grid(tiling, (size.width, size.height))
        thumbnail = slide.thumbnail()
        mask = tissue_mask(thumbnail)
        shares = tissue_shares(mask, slide, grid)
        count = _count(path, shares, tiling, mask)
        heat = _Heat(slide, grid, mask.shape)
        tiles, places = [], grid.tiles(shares, tiling.tissue)
        found = session.stream_pixels(places, partial(slide.read, grid), batch_size=batch_size, workers=workers)
        with closing(found):  # no thread reads from a slide that is closed
            for tile, result in track(found, path.name, count, unit="tiles"):
                if isinstance(result, InputError):
                    raise result if str(result).startswith(str(path)) else ImageError(f"{path}, {result}")
                tiles.append(ScoredTile(tile, result.score, result.decision))
                heat.add(tile, result.score)
    score, rule = slide_score(session, [item.score for item in tiles])
    group = session.scorer.spec.group
    calibration = session.scorer.spec.calibration
    return SlideScore(
        score=score,
        rule=rule,
        density=None if group is None else group.density(score),
        tiles=tiles,
        places=shares.size,
        extent=grid.extent,
        threshold=None if calibration is None else calibration.threshold,
        tissue=float(mask.mean()),
        thumbnail=thumbnail,
        mask=mask,
        heat=heat.values(),
    )


def slide_score(session: Session, scores: list[float]) -> tuple[float, str]:
    """The tiles' scores as one, and by which rule: the spec's for groups, else the mean of the highest tenth."""
    values = np.asarray(scores, np.float64)
    group = session.scorer.spec.group
    if group is None:
        highest = np.sort(values)[-max(1, round(HIGHEST * len(values))) :]
        return float(highest.mean()), "mean of the highest tenth"
    method, parameter = group.rule
    how = {"fraction": f"share above {parameter:.4g}", "topk": f"mean of the highest {parameter:.0%}"}
    return session.scorer.group(values, ["slide"] * len(values))["slide"], f"{how.get(method, method)}, by the model"


def _count(path: Path, shares: NDArray[np.float64], tiling: Tiling, mask: Mask) -> int:
    """How many tiles there are with tissue enough; none is an error."""
    if count := int(np.count_nonzero(shares >= tiling.tissue)):
        return count
    raise ImageError(
        f"{path}: found no tile with {tiling.tissue:.0%} tissue or more (most in one: {shares.max():.1%}; of the "
        f"slide: {mask.mean():.1%}); lower --tissue (0 takes every tile), or leave the slide out"
    )


class _Heat:
    """Sums of scores and of areas on the thumbnail. A tile that covers a part of a pixel adds that part."""

    def __init__(self, slide: Slide, grid: Grid, shape: tuple[int, ...]) -> None:
        self._scale = shape[1] / slide.width, shape[0] / slide.height
        self._extent = grid.extent
        self._sum, self._area = np.zeros(shape), np.zeros(shape)

    def add(self, tile: Tile, score: float) -> None:
        columns, across = _covered(tile.x, self._extent[0], self._scale[0], self._sum.shape[1])
        rows, down = _covered(tile.y, self._extent[1], self._scale[1], self._sum.shape[0])
        area = down[:, None] * across
        self._area[rows, columns] += area
        self._sum[rows, columns] += score * area

    def values(self) -> NDArray[np.float64]:
        return np.divide(self._sum, self._area, out=np.full_like(self._sum, np.nan), where=self._area > 1e-9)


def _covered(start: float, extent: float, scale: float, limit: int) -> tuple[slice, NDArray[np.float64]]:
    """The pixels that an interval of level 0 touches, and the share of each that it covers."""
    low, high = start * scale, min((start + extent) * scale, limit)
    first, last = int(low), max(int(low) + 1, int(np.ceil(high)))
    edges = np.clip(np.arange(first, last + 1), low, high)
    return slice(first, last), np.diff(edges)
