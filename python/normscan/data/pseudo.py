"""Pseudo-anomalies: a normal picture made abnormal in one place, out of itself and another normal one, the donor.

Every maker in `MAKERS` takes (pixels, donor, rng) -> (pixels, mask bool [H,W]). Pixels and donor are [H,W] or [H,W,3],
of one dtype (uint8, uint16, float32 in 0..1) and number of channels, 8 pixels a side or more; the donor is resized
where its sides differ. Shape and dtype stay, nothing changes outside the mask, and something always changes: where a
draw changes nothing to speak of (a flat picture, or the donor is the picture itself) it is drawn anew, and in the end
the area is lightened or darkened. The mask is exactly where pixels changed. That of "mixed" covers the whole area, and
there a change may be too small for 8 bits, where the picture is flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from normscan.data.augment import UNIT, Field, Pixels, affine, check_pixels, noise
from normscan.errors import ArgumentError

Mask = NDArray[np.bool_]
Maker = Callable[[Pixels, Pixels, np.random.Generator], tuple[Pixels, Mask]]

_MIN_SIDE = 8  # pixels; a smaller picture has no room for a local anomaly
_AREA = (0.03, 0.15)  # of the picture
_TRIES = 4
_VISIBLE = 0.05  # mean change in the area, in the picture's spread; less is drawn anew
_VISIBLE_SEAMLESS = 0.02  # without edges a change is less; at 0.05 a quarter of naevi had no patch that would do
_MIDDLE = (0.2, 0.8)  # of each side, where centres lie
_HALF_WIDTH = (0.05, 0.2)  # of FPI's square, as a share of the shorter side (SAGAN, Zhang et al. 2024)
_RECTANGLE = (0.02, 0.15)  # of the picture (Li et al. 2021)
_ASPECT = (0.3, 3.3)  # the same
_JITTER = 0.1  # the same, of brightness, contrast, saturation and hue
_RESIZED = (0.7, 1.3)  # a donor's patch (Schlueter et al. 2022)
_PLACES = 4  # in the donor, of which the one with the most contrast is taken
_CELL = 8  # pixels; DRAEM's finest noise has 32 cells in 256 pixels
_LEVEL = 0.5  # of DRAEM's noise; above it lies the area
_LEAST = 0.02  # of the picture, where too little noise is above it
_OPACITY = (0.2, 0.9)  # ours; DRAEM's is 0.2 to 1


def plant_anomaly(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """One of three kinds, equally likely -> (pixels, mask bool [H,W]); arguments as the module says.

    A turned patch of the donor with other colours (CutPaste, Li et al. 2021), an irregular area blended with the
    donor's texture (alpha 0.3 to 1, as DRAEM, Zavrtanik et al. 2021), or a warped and darkened or lightened area. It
    covers 3 to 15 % of the picture, placed around a point in the middle 60 %.
    """
    base, other, spread = _scaled("plant_anomaly", pixels, donor)
    for _ in range(_TRIES):
        kind = (_patch, _texture, _deformation)[rng.integers(3)]
        alpha, content = kind(base, other, spread, rng)
        change = alpha[:, :, None] * (np.clip(content, 0.0, 1.0) - base)
        mask = alpha > 0
        if np.abs(change[mask]).mean() > _VISIBLE * spread:
            break
    else:  # flat pictures have no texture to borrow: lighten or darken, towards the farther end of the scale
        away = np.where(base > 0.5, -0.3, 0.3).astype(np.float32) * np.float32(max(spread, 0.2))
        change = alpha[:, :, None] * away
    return _written(pixels, base + change, mask), mask


def fpi(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A square blended with the same place of the donor, after FPI (Tan et al. 2020), in the form of SAGAN.

    Its centre lies in the middle 60 % of each side, its half width is 5 to 20 % of the shorter side, its opacity is
    uniform in 0..1, so that some are hardly seen: only what changes no pixel at all is drawn anew.
    """
    return _planted("fpi", _square, pixels, donor, rng, least=0.0)


def cutpaste(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A rectangle of the picture itself, its colours jittered, pasted to another place (CutPaste, Li et al. 2021).

    It covers 2 to 15 % of the picture, with an aspect of 0.3 to 3.3. The donor is not used.
    """
    return _planted("cutpaste", _pasted, pixels, donor, rng)


def poisson(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """A rectangle whose gradients are the donor's, without a seam (NSA, Schlueter et al. 2022; Perez et al. 2003).

    Of four places in the donor the one with the most contrast is taken, at 0.7 to 1.3 of its size: where all is smooth,
    nothing would change. Half of the draws mix both pictures' gradients, half take the donor's alone. OpenCV solves for
    8 bits: the patches' values, and half as much room below and above as the two pictures' span, are brought to 0..255,
    and what comes back is the change. So 16 bits and floats change in steps of that span / 127 at most.
    """
    return _planted("poisson", _cloned, pixels, donor, rng, least=_VISIBLE_SEAMLESS)


def perlin(pixels: Pixels, donor: Pixels, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """The donor's texture where Perlin noise is high (DRAEM, Zavrtanik et al. 2021), with opacity 0.2 to 0.9.

    Specks or large areas, one or many, sharp-edged, from 2 % of the picture to about a third.
    """
    return _planted("perlin", _noisy, pixels, donor, rng)


MAKERS: dict[str, Maker] = {
    "mixed": plant_anomaly,
    "fpi": fpi,
    "cutpaste": cutpaste,
    "poisson": poisson,
    "perlin": perlin,
}
"""By the names that a family's `plant` takes."""

_Planted = tuple[Field, Field]  # opacity [H,W], content [H,W,C]
_Kind = Callable[[Field, Field, float, np.random.Generator], _Planted]


def _scaled(who: str, pixels: Pixels, donor: Pixels) -> tuple[Field, Field, float]:
    """Both pictures [H,W,C] in 0..1, of the same sides, and the range that the first one's values span."""
    import cv2

    check_pixels(who, pixels)
    check_pixels(who, donor)
    height, width = pixels.shape[:2]
    if min(height, width) < _MIN_SIDE:
        raise ArgumentError(f"{who}: found {width} x {height} pixels; expected at least {_MIN_SIDE} a side")
    if pixels.dtype != donor.dtype or pixels.shape[2:] != donor.shape[2:]:
        raise ArgumentError(
            f"{who}: pixels are {pixels.dtype} {list(pixels.shape)}, donor {donor.dtype} {list(donor.shape)}; "
            "expected one dtype and number of channels"
        )
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        raise ArgumentError(f"{who}: found {pixels.shape[2]} channels; expected 1 or 3")
    unit = np.float32(UNIT[str(pixels.dtype)])
    base = _planes(pixels) / unit
    other = _planes(cv2.resize(donor, (width, height), interpolation=cv2.INTER_AREA)) / unit
    return base, other, float(max(np.subtract(*np.percentile(base[::2, ::2], (99, 1))), 0.02))


def _planes(pixels: Pixels) -> Field:
    return pixels.astype(np.float32).reshape(*pixels.shape[:2], -1)


def _written(pixels: Pixels, values: Field, mask: Mask) -> Pixels:
    """The picture with `values` [H,W,C], of white 1, where the mask is."""
    unit = UNIT[str(pixels.dtype)]
    planted = np.clip(values * unit, 0.0, unit).reshape(pixels.shape)
    result = pixels.copy()
    result[mask] = planted[mask] if unit == 1.0 else np.rint(planted[mask]).astype(pixels.dtype)
    return result


def _planted(
    who: str, kind: _Kind, pixels: Pixels, donor: Pixels, rng: np.random.Generator, *, least: float = _VISIBLE
) -> tuple[Pixels, Mask]:
    """What a kind draws, as soon as it changes more than `least` of the spread in the mean -> (pixels, mask)."""
    base, other, spread = _scaled(who, pixels, donor)
    for _ in range(_TRIES):
        alpha, content = kind(base, other, spread, rng)
        area = alpha > 0
        change = alpha[:, :, None] * (np.clip(content, 0.0, 1.0) - base)
        result = _written(pixels, base + change, area)
        if (mask := _differ(result, pixels)).any() and np.abs(change[area]).mean() > least * spread:
            return result, mask
    away = np.float32(max(spread, 0.2) * (-0.3 if base[area].mean() > 0.5 else 0.3))
    result = _written(pixels, base + away, area)
    return result, _differ(result, pixels)


def _differ(one: Pixels, other: Pixels) -> Mask:
    return np.asarray((one != other).reshape(*one.shape[:2], -1).any(axis=2), dtype=np.bool_)


class Ellipse(NamedTuple):
    """Coordinates around a centre, in half axes: `along` and `across` [H,W]; radius 1 is an ellipse of `area`."""

    along: Field
    across: Field
    area: float  # share of the picture


def ellipse(rng: np.random.Generator, shape: tuple[int, int], *, area: tuple[float, float] = _AREA) -> Ellipse:
    """A random place, angle and aspect; the centre lies in the middle 60 % of [H,W]; `area` is drawn log-uniformly."""
    height, width = shape
    centre_y, centre_x = rng.uniform(*_MIDDLE, 2) * (height - 1, width - 1)
    share = float(np.exp(rng.uniform(*np.log(area))))
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.35, 0.35))
    radius = np.sqrt(share * height * width / np.pi)
    y, x = (np.arange(height) - centre_y)[:, None], (np.arange(width) - centre_x)[None, :]
    along = (np.cos(angle) * x + np.sin(angle) * y) / (radius * stretch)
    across = (np.cos(angle) * y - np.sin(angle) * x) / (radius / stretch)
    return Ellipse(along.astype(np.float32), across.astype(np.float32), share)


def outline(height_map: Field, area: float, edge: float) -> Field:
    """Opacity [H,W] in 0..1 of the `area` (share) where the map is highest; it rises inwards over `edge` map units."""
    count = max(1, round(area * height_map.size))
    level = np.partition(height_map, height_map.size - count, axis=None)[height_map.size - count]
    opacity = np.clip((height_map - level) / np.float32(edge), 0.05, 1.0)  # 0.05: what the mask covers, has changed
    return np.where(height_map >= level, opacity, np.float32(0)).astype(np.float32)


def _patch(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """A rectangle, sharp-edged, of the donor turned and moved, its colours jittered."""
    place = ellipse(rng, base.shape[:2])
    alpha = outline(-np.maximum(np.abs(place.along), np.abs(place.across)), place.area, 0.05)
    jitter = spread * rng.uniform(-0.2, 0.2, base.shape[2]) + spread * rng.choice((-0.15, 0.15))
    return alpha, (_moved(other, rng) + jitter).astype(np.float32)


def _texture(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """An irregular area with soft edges, blended with the donor's texture from elsewhere, contrast raised."""
    alpha = _blob(base, rng, roughness=0.25, edge=0.35) * np.float32(rng.uniform(0.3, 1.0))
    return alpha, _strange(other, spread, rng)


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


def _square(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """A square, which lies within the picture whatever its shape, with the donor as it is."""
    height, width = base.shape[:2]
    half = rng.uniform(*_HALF_WIDTH) * min(height, width)
    middle = rng.uniform(*_MIDDLE, 2) * (height, width)
    side = max(1, round(2 * half))
    top, left = np.rint(middle - side / 2).astype(int)
    alpha = np.zeros((height, width), np.float32)
    alpha[top : top + side, left : left + side] = rng.random()
    return alpha, other


def _pasted(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """A rectangle of the picture, in another place of it."""
    height, width = base.shape[:2]
    high, wide = _sides(height, width, rng)
    columns = width - wide + 1
    places = rng.choice((height - high + 1) * columns, 2, replace=False)
    (top, left), (to_top, to_left) = (divmod(int(place), columns) for place in places)
    alpha, content = np.zeros((height, width), np.float32), base.copy()
    alpha[to_top : to_top + high, to_left : to_left + wide] = 1.0
    patch = _jittered(base[top : top + high, left : left + wide], rng)
    content[to_top : to_top + high, to_left : to_left + wide] = patch
    return alpha, content


def _cloned(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """A rectangle of the donor by its gradients, in a ring of one pixel that stays."""
    import cv2

    height, width = base.shape[:2]
    high, wide = _sides(height, width, rng)
    top, left = rng.integers(height - high - 1), rng.integers(width - wide - 1)  # of the ring
    scale = rng.uniform(*_RESIZED)
    from_high, from_wide = min(round(scale * (high + 4)), height), min(round(scale * (wide + 4)), width)
    ys, xs = rng.integers(height - from_high + 1, size=_PLACES), rng.integers(width - from_wide + 1, size=_PLACES)
    patches = [other[y : y + from_high, x : x + from_wide] for y, x in zip(ys, xs, strict=True)]
    patch = max(patches, key=lambda p: float(p[::2, ::2].std(axis=(0, 1)).mean()))
    source = np.asarray(cv2.resize(patch, (wide + 4, high + 4)), dtype=np.float32)
    target = base[top : top + high + 2, left : left + wide + 2]
    least, most = float(min(base.min(), other.min())), float(max(base.max(), other.max()))
    room = (most - least) / 2  # the solution may go beyond what it is made of
    ends = max(least - room, 0.0), min(most + room, 1.0)
    change = _seamless(source, target, *ends, mixed=rng.random() < 0.5)
    alpha, content = np.zeros((height, width), np.float32), base.copy()
    inner = slice(top + 1, top + 1 + high), slice(left + 1, left + 1 + wide)
    alpha[inner] = 1.0
    content[inner] += change[1:-1, 1:-1]
    return alpha, content


def _seamless(source: Field, target: Field, low: float, high: float, *, mixed: bool) -> Field:
    """The change of target [h,w,C] by source's gradients, 0 in the outermost pixels; low and high become 0 and 255.

    source has two more pixels on each axis's ends together: seamlessClone leaves its outermost ones out.
    """
    import cv2

    to_bytes = 255 / max(high - low, 1e-6)
    shapes = (*source.shape[:2], 3), (*target.shape[:2], 3)
    planes = source.reshape(*source.shape[:2], -1), target
    source8, target8 = (
        np.broadcast_to(np.rint((plane - np.float32(low)) * to_bytes), shape).astype(np.uint8)
        for plane, shape in zip(planes, shapes, strict=True)
    )
    mask = np.full(source8.shape[:2], 255, np.uint8)
    centre = target.shape[1] // 2, target.shape[0] // 2
    cloned = cv2.seamlessClone(source8, target8, mask, centre, cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE)
    change = (cloned.astype(np.float32) - target8) / np.float32(to_bytes)
    return np.asarray(change[:, :, : target.shape[2]], dtype=np.float32)


def _noisy(base: Field, other: Field, spread: float, rng: np.random.Generator) -> _Planted:
    """Where the noise is high, the donor's texture."""
    shape = base.shape[:2]
    finest = max(0, min(5, int(np.log2(min(shape) / _CELL))))
    field = gradient_noise(rng, shape, *(2 ** rng.integers(0, finest + 1, 2)))
    field = affine(field, rng, rotate=90.0, shift=0.0, shear=0.0, zoom=0.0, flip=False)
    area = field > min(_LEVEL, float(np.quantile(field, 1 - _LEAST)))
    alpha = area.astype(np.float32) * np.float32(rng.uniform(*_OPACITY))
    return alpha, _strange(other, spread, rng)


def gradient_noise(rng: np.random.Generator, shape: tuple[int, int], rows: int, columns: int) -> Field:
    """Perlin's noise (1985) [H,W], within -1..1: a random slope at each corner of rows x columns cells."""
    angle = rng.uniform(0.0, 2 * np.pi, (rows + 1, columns + 1))
    slopes = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    y, x = (
        np.arange(side, dtype=np.float32) * np.float32(cells / side)
        for side, cells in zip(shape, (rows, columns), strict=True)
    )
    row, column = y.astype(int), x.astype(int)
    y, x = (y - row)[:, None], (x - column)[None, :]
    along_y, along_x = (t * t * t * (t * (6 * t - 15) + 10) for t in (y, x))  # 1 at the next corner; flat at both

    def corner(down: int, right: int) -> Field:
        at = np.ix_(row + down, column + right)
        return np.asarray(slopes[0][at] * (y - down) + slopes[1][at] * (x - right), dtype=np.float32)

    above = corner(0, 0) + along_x * (corner(0, 1) - corner(0, 0))
    below = corner(1, 0) + along_x * (corner(1, 1) - corner(1, 0))
    return np.asarray(np.float32(np.sqrt(2)) * (above + along_y * (below - above)), dtype=np.float32)


def _sides(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of CutPaste's rectangle; it leaves two pixels of each side, even of one that is short."""
    area = rng.uniform(*_RECTANGLE) * height * width
    aspect = np.exp(rng.uniform(*np.log(_ASPECT)))
    aspect = np.clip(aspect, area / (height - 2) ** 2, (width - 2) ** 2 / area)
    return max(1, round(np.sqrt(area / aspect))), max(1, round(np.sqrt(area * aspect)))


def _jittered(patch: Field, rng: np.random.Generator) -> Field:
    """Another brightness, contrast, saturation and hue, each by up to a tenth."""
    bright, contrast, saturation = rng.uniform(1 - _JITTER, 1 + _JITTER, 3)
    angle = 2 * np.pi * rng.uniform(-_JITTER, _JITTER)
    patch = patch * bright
    patch = patch.mean() + contrast * (patch - patch.mean())
    grey = patch.mean(axis=2, keepdims=True)
    colour = patch - grey
    if patch.shape[2] == 3:  # turned about the grey axis
        across = (np.roll(colour, 1, axis=2) - np.roll(colour, -1, axis=2)) / np.sqrt(3)
        colour = np.cos(angle) * colour + np.sin(angle) * across
    return np.asarray(grey + saturation * colour, dtype=np.float32)


def _strange(other: Field, spread: float, rng: np.random.Generator) -> Field:
    """The donor's texture from elsewhere in it, contrast raised, lighter or darker by channel."""
    moved = _moved(other, rng)
    mean = moved.mean(axis=(0, 1))
    shifted = mean + spread * rng.choice((-1.0, 1.0)) * rng.uniform(0.15, 0.45, other.shape[2])
    return np.asarray((moved - mean) * rng.uniform(1.0, 2.0) + shifted, dtype=np.float32)


def _moved(other: Field, rng: np.random.Generator) -> Field:
    """The donor turned by any angle and moved, so that the area shows another place of it."""
    return affine(other, rng, rotate=180.0, shift=0.5, shear=0.0, zoom=0.3)
