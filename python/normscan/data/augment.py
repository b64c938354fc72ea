"""Augmentation of training images, and pseudo-anomalies planted into normal ones for validation.

Every draw comes from a generator seeded by hash(seed, epoch, index), so that neither the number of workers nor a
resumed run changes what an image looks like.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normscan.errors import ArgumentError

Pixels = NDArray[Any]
Field = NDArray[np.float32]

_UNIT = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
_MIN_SIDE = 8  # pixels; a smaller picture has no room for a local anomaly
_AREA = (0.03, 0.15)  # of the picture
_TRIES = 4
_CELLS = 4  # of an elastic warp
# Directions of haematoxylin, eosin and DAB in optical density of R, G, B (Ruifrok and Johnston 2001, table 1).
_STAINS = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
_STAINS /= np.linalg.norm(_STAINS, axis=1, keepdims=True)


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Generator for one image in one epoch; neighbouring seeds, epochs and indices are unrelated (BLAKE2b)."""
    key = hashlib.blake2b(f"{int(seed)}/{int(epoch)}/{int(index)}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))


def augment(
    pixels: Pixels, rng: np.random.Generator, *, elastic: float = 0.0, stain_jitter: float = 0.0, **ranges: Any
) -> Pixels:
    """What training does to a picture: `affine` with its `ranges`, then `elastic`, then `stain_jitter`, where not 0."""
    pixels = affine(pixels, rng, **ranges)
    if elastic:
        pixels = elastic_warp(pixels, rng, elastic)
    return jitter_stains(pixels, rng, stain_jitter) if stain_jitter else pixels


def affine(
    pixels: Pixels,
    rng: np.random.Generator,
    *,
    rotate: float = 20.0,
    shift: float = 0.2,
    shear: float = 0.2,
    zoom: float = 0.2,
    flip: bool = True,
) -> Pixels:
    """One random affine map, sampled once (bilinear, reflected border) -> same shape and dtype.

    pixels [H,W] or [H,W,C], uint8, uint16 or float32. Ranges as in OCAD, each uniform in +-: `rotate` in degrees,
    `shift` as a share of the side, `shear` as a tangent, `zoom` around 1 for each axis; `flip` mirrors half of them.
    """
    import cv2

    _check(pixels)
    height, width = pixels.shape[:2]
    # All numbers are drawn whatever the ranges are, so that switching one off leaves the others as they were.
    turn, tilt, move_x, move_y, zoom_x, zoom_y = rng.uniform(-1.0, 1.0, 6)
    mirror = -1.0 if rng.random() < 0.5 and flip else 1.0
    angle = np.deg2rad(rotate * turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shearing = np.array([[1.0, shear * tilt], [0.0, 1.0]])
    scaling = np.diag([mirror * (1.0 + zoom * zoom_x), 1.0 + zoom * zoom_y])
    linear = rotation @ shearing @ scaling
    centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    offset = centre + shift * np.array([move_x * width, move_y * height]) - linear @ centre
    matrix = np.column_stack([linear, offset])
    warped = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped).reshape(pixels.shape)


def elastic_warp(pixels: Pixels, rng: np.random.Generator, reach: float) -> Pixels:
    """Smooth random displacements (Simard et al. 2003): a picture as of soft tissue -> same shape and dtype.

    pixels [H,W] or [H,W,C]; `reach` is the displacements' standard deviation as a share of the shorter side, `_CELLS`
    how many of them are independent along it. Bilinear, reflected border.
    """
    import cv2

    _check(pixels)
    height, width = pixels.shape[:2]
    push = np.float32(reach * min(height, width))
    x = np.arange(width, dtype=np.float32)[None, :] + push * noise(rng, (height, width), _CELLS)
    y = np.arange(height, dtype=np.float32)[:, None] + push * noise(rng, (height, width), _CELLS)
    warped = cv2.remap(pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped).reshape(pixels.shape)


def jitter_stains(pixels: Pixels, rng: np.random.Generator, strength: float) -> Pixels:
    """Another laboratory's slide: stains stronger or weaker, of other hues, under another light.

    Optical density, -log10 of the transmitted share, is additive in the stains (Ruifrok and Johnston 2001). It is taken
    apart by their vectors of haematoxylin, eosin and DAB, and put together with each stain's amount times 1 + and each
    direction of colour moved by normal numbers of `strength` (amounts as Tellez et al. 2018; directions ours, since
    laboratories differ in hue too). pixels [H,W,3] RGB -> same shape and dtype; [H,W] has no stains and comes back.
    """
    import cv2

    _check(pixels)
    if pixels.ndim == 2:
        return pixels
    unit = np.float32(_UNIT[str(pixels.dtype)])
    amounts = np.maximum(1 + strength * rng.standard_normal(3), 0.1)
    directions = np.maximum(_STAINS + 0.5 * strength * rng.standard_normal((3, 3)), 0.0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    light = 1 + 0.1 * strength * rng.standard_normal(3)
    change = (np.linalg.inv(_STAINS) @ (amounts[:, None] * directions)).astype(np.float32)
    transmitted = np.maximum(pixels.astype(np.float32) / unit, np.float32(1 / 255))
    density = cv2.transform(np.log(transmitted), change.T)
    changed: Pixels = np.clip(np.exp(density) * light.astype(np.float32), 0.0, 1.0) * unit
    return changed if unit == 1.0 else np.rint(changed).astype(pixels.dtype)


def plant_anomaly(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.bool_]]:
    """Plant one pseudo-anomaly made from normal images only -> (pixels, mask bool [H,W]).

    pixels and donor: [H,W] or [H,W,3] of one dtype (uint8, uint16, float32 in 0..1) and number of channels; the donor
    is resized where its sides differ. One of three kinds, equally likely: a turned patch of the donor with other
    colours (CutPaste, Li et al. 2021), an irregular area blended with the donor's texture (alpha 0.3 to 1, as DRAEM,
    Zavrtanik et al. 2021), or a warped and darkened or lightened area. It covers 3 to 15 % of the picture, is placed
    around a point in the middle 60 %, and outside the mask nothing changes.
    """
    import cv2

    _check(pixels)
    _check(donor)
    height, width = pixels.shape[:2]
    if min(height, width) < _MIN_SIDE:
        raise ArgumentError(f"plant_anomaly: found {width} x {height} pixels; expected at least {_MIN_SIDE} a side")
    if pixels.dtype != donor.dtype or pixels.shape[2:] != donor.shape[2:]:
        raise ArgumentError(
            f"plant_anomaly: pixels are {pixels.dtype} {list(pixels.shape)}, donor {donor.dtype} {list(donor.shape)}; "
            "expected one dtype and number of channels"
        )
    unit = _UNIT[str(pixels.dtype)]
    base = _planes(pixels) / np.float32(unit)
    other = _planes(cv2.resize(donor, (width, height), interpolation=cv2.INTER_AREA)) / np.float32(unit)
    spread = float(max(np.subtract(*np.percentile(base[::2, ::2], (99, 1))), 0.02))
    for _ in range(_TRIES):
        kind = (_patch, _texture, _deformation)[rng.integers(3)]
        alpha, content = kind(base, other, spread, rng)
        change = alpha[:, :, None] * (np.clip(content, 0.0, 1.0) - base)
        mask = alpha > 0
        if np.abs(change[mask]).mean() > 0.05 * spread:
            break
    else:  # flat pictures have no texture to borrow: lighten or darken, towards the farther end of the scale
        away = np.where(base > 0.5, -0.3, 0.3).astype(np.float32) * np.float32(max(spread, 0.2))
        change = alpha[:, :, None] * away
    planted = np.clip((base + change) * unit, 0.0, unit).reshape(pixels.shape)
    result = pixels.copy()
    result[mask] = planted[mask] if unit == 1.0 else np.rint(planted[mask]).astype(pixels.dtype)
    return result, mask


class Ellipse(NamedTuple):
    """Coordinates around a centre, in half axes: `along` and `across` [H,W]; radius 1 is an ellipse of `area`."""

    along: Field
    across: Field
    area: float  # share of the picture


def ellipse(rng: np.random.Generator, shape: tuple[int, int], *, area: tuple[float, float] = _AREA) -> Ellipse:
    """A random place, angle and aspect; the centre lies in the middle 60 % of [H,W]; `area` is drawn log-uniformly."""
    height, width = shape
    centre_y, centre_x = rng.uniform(0.2, 0.8, 2) * (height - 1, width - 1)
    share = float(np.exp(rng.uniform(*np.log(area))))
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.35, 0.35))
    radius = np.sqrt(share * height * width / np.pi)
    y, x = (np.arange(height) - centre_y)[:, None], (np.arange(width) - centre_x)[None, :]
    along = (np.cos(angle) * x + np.sin(angle) * y) / (radius * stretch)
    across = (np.cos(angle) * y - np.sin(angle) * x) / (radius / stretch)
    return Ellipse(along.astype(np.float32), across.astype(np.float32), share)


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Field:
    """Smooth noise [H,W], about N(0, 1): `cells` independent values along the shorter side, cubic between them."""
    import cv2

    step = min(shape) / cells
    coarse = rng.standard_normal([max(2, round(side / step) + 1) for side in shape]).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def outline(height_map: Field, area: float, edge: float) -> Field:
    """Opacity [H,W] in 0..1 of the `area` (share) where the map is highest; it rises inwards over `edge` map units."""
    count = max(1, round(area * height_map.size))
    level = np.partition(height_map, height_map.size - count, axis=None)[height_map.size - count]
    opacity = np.clip((height_map - level) / np.float32(edge), 0.05, 1.0)  # 0.05: what the mask covers, has changed
    return np.where(height_map >= level, opacity, np.float32(0)).astype(np.float32)


_Planted = tuple[Field, Field]  # opacity [H,W], content [H,W,C]


def _patch(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """A rectangle, sharp-edged, of the donor turned and moved, its colours jittered."""
    place = ellipse(rng, base.shape[:2])
    alpha = outline(-np.maximum(np.abs(place.along), np.abs(place.across)), place.area, 0.05)
    jitter = spread * rng.uniform(-0.2, 0.2, base.shape[2]) + spread * rng.choice((-0.15, 0.15))
    return alpha, (_moved(other, rng) + jitter).astype(np.float32)


def _texture(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """An irregular area with soft edges, blended with the donor's texture from elsewhere, contrast raised."""
    alpha = _blob(base, rng, roughness=0.25, edge=0.35) * np.float32(rng.uniform(0.3, 1.0))
    moved = _moved(other, rng)
    mean = moved.mean(axis=(0, 1))
    shifted = mean + spread * rng.choice((-1.0, 1.0)) * rng.uniform(0.15, 0.45, base.shape[2])
    return alpha, ((moved - mean) * rng.uniform(1.0, 2.0) + shifted).astype(np.float32)


def _deformation(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """The picture's own texture pushed aside and darkened or lightened, mottled, with a ragged outline."""
    import cv2

    height, width = base.shape[:2]
    alpha = _blob(base, rng, roughness=0.6, edge=0.2)
    reach = 0.08 * min(height, width)
    push = [noise(rng, (height, width), 6) * np.float32(reach) * alpha for _ in range(2)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warped = cv2.remap(base, x + push[0], y + push[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mottle = 1.0 + 0.5 * noise(rng, (height, width), 16)
    shade = rng.choice((-1.0, 1.0), p=(0.7, 0.3)) * rng.uniform(0.15, 0.5) * spread * mottle
    return alpha, (np.asarray(warped).reshape(base.shape) + shade[:, :, None]).astype(np.float32)


def _blob(base: Field, rng: np.random.Generator, *, roughness: float, edge: float) -> Field:
    place = ellipse(rng, base.shape[:2])
    radius = np.hypot(place.along, place.across)
    # The noise fades far from the centre, so that no islands appear there.
    ragged = noise(rng, base.shape[:2], 10) * np.float32(roughness) * np.exp(-np.square(radius) / 4)
    return outline((ragged - radius).astype(np.float32), place.area, edge)


def _moved(other: Field, rng: np.random.Generator) -> Field:
    """The donor turned by any angle and moved, so that the area shows another place of it."""
    return affine(other, rng, rotate=180.0, shift=0.5, shear=0.0, zoom=0.3)


def _planes(pixels: Pixels) -> Field:
    return pixels.astype(np.float32).reshape(*pixels.shape[:2], -1)


def _check(pixels: Pixels) -> None:
    if str(pixels.dtype) not in _UNIT or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ArgumentError(
            f"augment: found {pixels.dtype} pixels of shape {list(pixels.shape)}; "
            "expected uint8, uint16 or float32, [H,W] or [H,W,C]"
        )
