"""One made-up patch of an immunostained gastric biopsy: glands, stroma, what is harmlessly red or brown, and rods.

Nothing here is clinical data. A patch shows 0.5 um a pixel (a 20x objective), so that a rod of *Helicobacter pylori*
(2 to 4 um) is 4 to 8 pixels long and the nucleus of a gland's cell about 12. Geometry comes first: lumens are drawn,
and the distance to the nearest of them, in pixels, says where epithelium, basement membrane and stroma lie. Then come
amounts of three dyes at each pixel (haematoxylin, chromogen, haemoglobin), and last the light that they let through
(Beer and Lambert).

Red and brown are no privilege of bacteria: red blood cells, whose peroxidase takes the chromogen too, lysed blood,
pigment in macrophages, plasma cells, mucus, cells rich in biotin and the blush of unspecific staining are in healthy
tissue as well, and cover more of it. Rods differ in being small, thin and gathered where lumen meets epithelium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normscan.data.augment import Field, noise
from normscan.errors import ArgumentError

_MIN_SIDE = 64  # pixels; a smaller patch may not show a whole gland
_MARGIN = 28  # pixels around the patch: glands and cells are cut by its edges as tissue is
_FINE = 4  # rods and cells are drawn so many times larger, for fractional places and widths

_Points = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Staining:
    """What a patient's patches have in common.

    dyes       float64 [3,3]: optical density in R, G, B (rows of unit length) of haematoxylin, chromogen, haemoglobin
    strengths  float64 [3]: factor of each dye's amount
    glass      float64 [3]: light through an empty place, 0..1
    blush      chromogen everywhere in tissue, unspecific
    blur       standard deviation of the picture's blur, pixels
    grain      standard deviation of the camera's noise, of 1
    blood, pigment, plasma, mucus, biotin    how much of each harmless thing a patch has on average, in units of its own
    """

    dyes: NDArray[np.float64]
    strengths: NDArray[np.float64]
    glass: NDArray[np.float64]
    blush: float
    blur: float
    grain: float
    blood: float
    pigment: float
    plasma: float
    mucus: float
    biotin: float


class _Scene(NamedTuple):
    """A patch's geometry, margin included."""

    depth: Field  # [S,S]: pixels from the lumen's edge, negative inside the lumen
    slope_x: Field  # [S,S]: the direction away from the lumen
    slope_y: Field
    height: float  # of the epithelium, pixels


def tissue(
    rng: np.random.Generator, staining: Staining, *, size: int = 128, rods: int = 0
) -> tuple[NDArray[np.uint8], int]:
    """One patch -> (pixels uint8 [size,size,3] RGB, the number of rods in it).

    Fewer rods than asked for come out only where no lumen is in sight: none at all. Raises ArgumentError for a size
    below 64.
    """
    import cv2

    if size < _MIN_SIDE:
        raise ArgumentError(f"tissue: found size {size}; expected at least {_MIN_SIDE} pixels")
    if rods < 0:
        raise ArgumentError(f"tissue: found {rods} rods; expected 0 or more")
    scene = _scene(rng, size + 2 * _MARGIN)
    blue, brown = _cells(rng, scene, staining)
    red = np.zeros_like(blue)
    _add_blood(rng, scene, staining, red, brown)
    _add_pigment(rng, scene, staining, brown)
    _add_mucus(rng, scene, staining, blue, brown)
    found = _add_rods(rng, scene, brown, rods)
    density = np.stack([blue, brown, red], axis=2).reshape(-1, 3) @ (staining.strengths[:, None] * staining.dyes)
    light = (staining.glass * np.power(10.0, -density)).astype(np.float32).reshape(*blue.shape, 3)
    seen = cv2.GaussianBlur(light, (0, 0), staining.blur)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    noisy = seen + staining.grain * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.rint(np.clip(noisy, 0.0, 1.0) * 255).astype(np.uint8), found


def _scene(rng: np.random.Generator, side: int) -> _Scene:
    """Glands cut across (round lumens) or along (pits) on a jittered, turned grid; one patch in twelve has none."""
    import cv2

    lumen = np.zeros((side, side), dtype=np.uint8)
    height = rng.uniform(23, 31)
    pitch = rng.uniform(84, 108)
    turn = rng.uniform(0, np.pi)
    pits = rng.random() < 0.45
    reach = int(side / pitch) + 1
    grid = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T + rng.uniform(-0.5, 0.5, 2)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = (1.9, 0.95) if pits else (1.0, 1.0)
    centres = (grid * stretch + rng.uniform(-0.12, 0.12, grid.shape)) * pitch @ rotation.T + side / 2
    barren = rng.random() < 1 / 12
    for centre in centres:
        outline = _lumen(rng, pits, turn) + centre  # drawn for every place, so that the numbers do not depend on others
        if not barren or np.hypot(*(centre - side / 2)) > 0.95 * side:
            cv2.fillPoly(lumen, [np.rint(outline).astype(np.int32)], 1)
    if not lumen.any():
        lumen[0, 0] = 1  # a distance needs somewhere to begin; the corner is cut off
    outside = cv2.distanceTransform(1 - lumen, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(lumen, cv2.DIST_L2, 5)
    depth = cv2.GaussianBlur(outside - inside, (0, 0), 0.8) + np.float32(1.6) * noise(rng, (side, side), side / 22)
    smooth = cv2.GaussianBlur(depth, (0, 0), 3)
    slope_y, slope_x = np.gradient(smooth)
    return _Scene(depth, slope_x.astype(np.float32), slope_y.astype(np.float32), height)


def _lumen(rng: np.random.Generator, pit: bool, turn: float) -> _Points:
    """A closed outline [64,2] around 0, in pixels: an ellipse, wavy."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    across = rng.uniform(6, 12) if pit else rng.uniform(6, 15)
    along = rng.uniform(48, 80) if pit else across * rng.uniform(1.0, 1.9)
    waves = np.arange(2, 7)
    wavy = 1 + (rng.uniform(0.02, 0.10, 5)[:, None] * np.cos(waves[:, None] * angle + rng.uniform(0, 7, (5, 1)))).sum(0)
    x, y = along * np.cos(angle) * wavy, across * np.sin(angle) * wavy
    lean = turn + rng.normal(0, 0.12) if pit else rng.uniform(0, np.pi)
    return np.stack([np.cos(lean) * x - np.sin(lean) * y, np.sin(lean) * x + np.cos(lean) * y], axis=1)


def _cells(rng: np.random.Generator, scene: _Scene, staining: Staining) -> tuple[Field, Field]:
    """Haematoxylin and chromogen [S,S] of lumen, epithelium, stroma and nuclei."""
    depth, height = scene.depth, scene.height
    side = depth.shape[0]
    share = np.clip(depth / height, 0, 1)
    epithelium = _step(depth + 0.5) * _step(height - depth)
    stroma = _step(depth - height - 1)
    # Mucin makes the luminal half of a cell pale and foamy, ribosomes the basal half blue.
    foam = noise(rng, depth.shape, side / 4)
    epithelial = 0.10 + 0.17 * np.square(share) + 0.025 * foam * (1 - share) + 0.03 * noise(rng, depth.shape, side / 14)
    border = 0.16 * np.exp(-np.square((depth - 1.0) / 1.1)) + 0.10 * np.exp(-np.square((depth - height) / 1.2))
    fibres = _fibres(rng, side)
    loose = 0.13 + 0.05 * fibres + 0.04 * noise(rng, depth.shape, side / 20)
    gaps = np.clip(1.6 * noise(rng, depth.shape, side / 16) - 1.1, 0, 1)  # stroma shrinks away from itself
    blue = (
        0.015 + epithelium * (epithelial + _seams(rng, scene)) + border + stroma * np.clip(loose, 0.03, 1) * (1 - gaps)
    )
    nuclei, cytoplasm = _nuclei(rng, scene, staining)
    chromatin = np.clip(0.80 + 0.16 * noise(rng, depth.shape, side / 2.6), 0.4, 1.2)
    blue = blue * (1 - nuclei) + 0.88 * nuclei * chromatin
    uneven = np.clip(1 + 0.5 * noise(rng, depth.shape, 3), 0.1, 2.5)
    # Biotin of the cell's own takes the chromogen in whole stretches of epithelium.
    biotin = np.clip(0.16 * noise(rng, depth.shape, side / 50) + 0.7 * staining.biotin - 0.2, 0, 0.6)
    brown = staining.blush * uneven * (0.2 + epithelium * (1.1 - 0.4 * share) + 0.8 * stroma)
    brown += (biotin * epithelium * (1.1 - 0.5 * share) + 0.3 * cytoplasm) * (1 - 0.8 * nuclei)
    return np.maximum(blue, 0).astype(np.float32), brown.astype(np.float32)


def _step(value: Field) -> Field:
    """0 below, 1 above, soft over two pixels."""
    return np.asarray(np.clip(0.5 + value / 2, 0, 1), dtype=np.float32)


def _fibres(rng: np.random.Generator, side: int) -> Field:
    """Wavy streaks [side,side], about N(0, 1)."""
    import cv2

    streaks = cv2.resize(
        rng.standard_normal((side // 3, side // 20)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    wave = np.float32(9) * noise(rng, (side, side), 4)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = cosine * x + sine * y, cosine * y - sine * x + wave
    return np.asarray(cv2.remap(streaks, along, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def _rows(rng: np.random.Generator, scene: _Scene, level: float, step: float) -> _Points:
    """Points [n,2] (x, y) about `step` pixels apart along the line where the depth is `level`."""
    import cv2

    within = (scene.depth < level).astype(np.uint8)
    lines, _ = cv2.findContours(within, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    side = within.shape[0]
    points = []
    for line in lines:
        here = line[:, 0, :].astype(np.float64)
        here = here[((here > 1) & (here < side - 2)).all(axis=1)]
        if len(here) > step:
            count = int(len(here) * 1.1 / step)  # a contour's pixels are 1 to 1.4 apart
            where = (np.arange(count) + rng.uniform(-0.28, 0.28, count)) * len(here) / count
            points.append(here[np.round(where).astype(int) % len(here)])
    return np.concatenate(points) if points else np.zeros((0, 2))


def _seams(rng: np.random.Generator, scene: _Scene) -> Field:
    """Borders [S,S] between neighbouring cells of the epithelium: thin lines across it."""
    import cv2

    side = scene.depth.shape[0]
    canvas = np.zeros((side * 2, side * 2), dtype=np.uint8)
    feet = _rows(rng, scene, scene.height * 0.5, 10.5)
    x, y = feet.T.astype(int)
    way = np.stack([scene.slope_x[y, x], scene.slope_y[y, x]], axis=1)
    way /= np.hypot(way[:, :1], way[:, 1:]) + 1e-6
    ends = np.stack([feet - way * scene.height * 0.46, feet + way * scene.height * 0.4], axis=1)
    cv2.polylines(canvas, list(np.rint(ends * 2).astype(np.int32)), False, 255, 1, cv2.LINE_AA)
    lines = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(lines * np.float32(0.11 / 255))


def _nuclei(rng: np.random.Generator, scene: _Scene, staining: Staining) -> tuple[Field, Field]:
    """Opacity [S,S] of nuclei, and of the stained cytoplasm of plasma cells."""
    import cv2

    side = scene.depth.shape[0]
    level = scene.height * rng.uniform(0.66, 0.78)
    palisade = _rows(rng, scene, level, rng.uniform(9.0, 11.5))
    x, y = palisade.T.astype(int)
    upright = np.degrees(np.arctan2(scene.slope_y[y, x], scene.slope_x[y, x])) + rng.normal(0, 10, len(x))
    palisade = palisade + rng.normal(0, 1.3, palisade.shape)
    columns = np.stack([rng.uniform(5.0, 7.0, len(x)), rng.uniform(3.4, 4.6, len(x))], axis=1)
    pitch = rng.uniform(11.5, 16)
    count = int(side / pitch) + 1
    free = (np.mgrid[:count, :count].reshape(2, -1).T + rng.uniform(0, 0.9, (count * count, 2))) * pitch
    kind = rng.random(len(free))
    # Lymphocytes and plasma cells are round, fibroblasts are spindles.
    round_ = rng.uniform(3.2, 4.4, (len(free), 1)) * rng.uniform(0.9, 1.12, (len(free), 2))
    spindle = np.stack([rng.uniform(5.5, 9, len(free)), rng.uniform(1.4, 2.2, len(free))], axis=1)
    axes = np.where(kind[:, None] < 0.6, round_, spindle)
    turn = rng.uniform(0, 180, len(free))
    stromal = _at(scene.depth, free) > scene.height + 4
    plasma = stromal & (kind < 0.6 * min(staining.plasma, 1.0))
    ink = rng.uniform(150, 255, len(free))
    nuclei = _ellipses(
        side,
        np.concatenate([palisade, free[stromal]]),
        np.concatenate([columns, axes[stromal]]),
        np.concatenate([upright, turn[stromal]]),
        np.concatenate([rng.uniform(130, 225, len(x)), ink[stromal]]),
    )
    shift = rng.normal(0, 1.8, free.shape)
    cytoplasm = _ellipses(side, (free + shift)[plasma], axes[plasma] * 1.65, turn[plasma], ink[plasma])
    return nuclei, np.asarray(cv2.GaussianBlur(cytoplasm, (0, 0), 1.0))


def _at(field: Field, points: _Points) -> Field:
    """A field's values at points (x, y); the nearest pixel's."""
    x, y = np.clip(np.rint(points).astype(int), 0, field.shape[0] - 1).T
    return np.asarray(field[y, x])


def _ellipses(side: int, centres: _Points, axes: _Points, turn: _Points, ink: _Points) -> Field:
    """Opacity [side,side], 0..1, of filled ellipses; half axes in pixels, turn in degrees, ink 0..255."""
    import cv2

    canvas = np.zeros((side * 2, side * 2), dtype=np.uint8)
    places = np.rint(centres * 2 * 16).astype(int)  # OpenCV takes sixteenths of a pixel
    sizes = np.rint(np.maximum(axes, 0.5) * 2 * 16).astype(int)
    for place, half, angle, shade in zip(places.tolist(), sizes.tolist(), turn.tolist(), ink.tolist(), strict=True):
        cv2.ellipse(canvas, place, half, angle, 0, 360, shade, -1, cv2.LINE_AA, 4)
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small.astype(np.float32) / 255)


def _add_blood(rng: np.random.Generator, scene: _Scene, staining: Staining, red: Field, brown: Field) -> None:
    """Red blood cells in capillaries of the stroma, or spilt; their peroxidase takes some chromogen."""
    import cv2

    side = red.shape[0]
    vessels = rng.poisson(0.7 * staining.blood * (side / 184) ** 2)
    spilt = rng.random() < 0.10 * min(staining.blood, 3.0)
    peroxidase = rng.uniform(0.0, 0.7)
    centres = []
    for _ in range(vessels):
        middle, way = rng.uniform(0, side, 2), rng.uniform(0, np.pi)
        count = rng.integers(2, 12)
        along = rng.normal(0, 4.5 * np.sqrt(count), (count, 1)) * np.array([[np.cos(way), np.sin(way)]])
        centres.append(middle + along + rng.normal(0, 3.5, (count, 2)))
    if spilt:
        count = rng.integers(15, 60)
        centres.append(rng.uniform(0, side, 2) + rng.normal(0, side / 6, (count, 2)))
    # Lysed blood, spread out between the cells.
    lake = np.clip(0.3 * noise(rng, red.shape, side / 62) + 0.2 * min(staining.blood, 2.0) - 0.47, 0, 0.5)
    red += lake * _step(scene.depth - scene.height)
    if not centres:
        return
    cells = np.concatenate(centres)
    inside = (cells > 0).all(axis=1) & (cells < side - 1).all(axis=1)
    cells = cells[inside]
    place = _at(scene.depth, cells)
    cells = cells[(place > scene.height) | ((place < -3) & spilt)]
    half = rng.uniform(5.2, 6.8, (len(cells), 1)) * rng.uniform(0.82, 1.1, (len(cells), 2))
    turn, ink = rng.uniform(0, 180, len(cells)), rng.uniform(120, 235, len(cells))
    discs = _ellipses(side, cells, half, turn, ink) - 0.45 * _ellipses(side, cells, half * 0.42, turn, ink)
    discs = cv2.GaussianBlur(discs, (0, 0), 1.2)
    red += 0.42 * discs
    brown += 0.3 * np.float32(peroxidase) * discs


def _add_pigment(rng: np.random.Generator, scene: _Scene, staining: Staining, brown: Field) -> None:
    """Haemosiderin in macrophages of the stroma (clumps of grains), and brown debris wherever it fell."""
    import cv2

    side = brown.shape[0]
    for _ in range(rng.poisson(0.55 * staining.pigment * (side / 184) ** 2)):
        middle = rng.uniform(0, side, (1, 2))
        if _at(scene.depth, middle)[0] < scene.height:
            continue
        count = rng.integers(14, 45)
        grains = middle + rng.normal(0, rng.uniform(3.0, 6.0), (count, 2))
        half = rng.uniform(1.4, 3.0, (count, 2))
        clump = _ellipses(side, grains, half, rng.uniform(0, 180, count), rng.uniform(110, 255, count))
        haze = _ellipses(side, middle, rng.uniform(7, 12, (1, 2)), rng.uniform(0, 180, 1), np.array([110.0]))
        brown += cv2.GaussianBlur(0.4 * clump + 1.2 * haze, (0, 0), 1.5)
    for _ in range(rng.poisson(0.3 * staining.pigment * (side / 184) ** 2)):
        middle = rng.uniform(0, side, (1, 2))
        count = rng.integers(3, 7)
        lumps = middle + rng.normal(0, 3.0, (count, 2))
        half = rng.uniform(1.8, 4.5, (count, 2))
        ink = np.full(count, rng.uniform(80, 210))
        brown += cv2.GaussianBlur(0.8 * _ellipses(side, lumps, half, rng.uniform(0, 180, count), ink), (0, 0), 1.2)


def _add_mucus(rng: np.random.Generator, scene: _Scene, staining: Staining, blue: Field, brown: Field) -> None:
    """Mucus in the lumen, in clouds, more or less stained."""
    side = brown.shape[0]
    lumen = _step(-scene.depth)
    cloud = np.clip(0.7 + 0.5 * noise(rng, brown.shape, side / 26), 0.05, 2)
    amount = staining.mucus * rng.gamma(1.2, 1 / 1.2)
    brown += np.minimum(0.2 * amount, 0.8) * lumen * cloud
    blue += 0.05 * rng.random() * lumen * cloud


def _add_rods(rng: np.random.Generator, scene: _Scene, brown: Field, count: int) -> int:
    """Rods in clusters at the luminal edge of the epithelium; each wholly within the patch. Returns their number."""
    import cv2

    side = brown.shape[0]
    near = (scene.depth > -7.5) & (scene.depth < 1.0)
    keep = _MARGIN + 5  # half a rod from the patch's edge
    near[:keep] = near[-keep:] = near[:, :keep] = near[:, -keep:] = False
    rows, columns = np.nonzero(near)
    if count == 0 or len(rows) < 30:
        return 0
    edge = np.stack([columns, rows], axis=1).astype(np.float64)
    centres = edge[rng.integers(len(edge), size=max(1, round(count / 6)))]
    wanted = centres[rng.integers(len(centres), size=count)] + rng.normal(0, 9, (count, 2))
    nearest = np.square(wanted[:, None] - edge).sum(axis=2).argmin(axis=1)
    places = edge[nearest] + rng.uniform(-0.5, 0.5, (count, 2))
    turn, length = rng.uniform(0, np.pi, count), rng.uniform(4.5, 8.0, count)
    bend = rng.normal(0, 0.9, count)
    canvas = np.zeros((side * _FINE, side * _FINE), dtype=np.uint8)
    t = np.linspace(-0.5, 0.5, 7)
    along = length[:, None] * t
    across = bend[:, None] * (1 - 4 * np.square(t)) if rng.random() < 0.5 else bend[:, None] * np.sin(2 * np.pi * t)
    x = places[:, :1] + np.cos(turn)[:, None] * along - np.sin(turn)[:, None] * across
    y = places[:, 1:] + np.sin(turn)[:, None] * along + np.cos(turn)[:, None] * across
    lines = np.rint(np.stack([x, y], axis=2) * _FINE + _FINE / 2).astype(np.int32)
    ink, width = rng.uniform(150, 255, count), rng.uniform(1.4, 2.1, count)
    for line, shade, wide in zip(lines, ink.tolist(), width.tolist(), strict=True):
        cv2.polylines(canvas, [line], False, shade, max(1, round(wide * _FINE)), cv2.LINE_AA)
    brown += 1.15 * cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return count
