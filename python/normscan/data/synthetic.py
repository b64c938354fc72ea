"""Made-up dermoscopy-like pictures for the demo and for tests: healthy skin, and skin with one planted lesion.

Nothing here is clinical data. Skin runs from very light to very dark, with mottling, skin lines, hairs, freckles, gel
bubbles, uneven light and vignetting, all of which are normal. A lesion is several things at once that healthy skin
never shows: blue-grey, brown and reddish colours side by side within one irregular, soft-edged area, and dots or
streaks in it. Its brightness follows the skin around it, so that the brightness of the whole picture tells little.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from normscan.data.augment import Field, noise, sample_rng
from normscan.data.pseudo import Ellipse, ellipse, outline
from normscan.data.read import write_image
from normscan.errors import ArgumentError, UsageError

_MIN_SIDE = 32  # pixels; below it hairs and freckles are not told from noise

# Skin from light to dark, sRGB; after the ten tones of the Monk scale (Monk 2019), pinker, as polarised light makes it.
_TONES = np.array(
    [(238, 208, 196), (230, 190, 172), (216, 170, 146), (192, 142, 116), (158, 110, 86), (124, 82, 64), (96, 62, 50)],
    dtype=np.float32,
) / np.float32(255)
# What a lesion does to the skin's brightness: blue-grey, brown, reddish; RGB factors.
_PIGMENTS = np.array([(0.52, 0.59, 0.69), (0.46, 0.30, 0.20), (0.84, 0.32, 0.32)], dtype=np.float32)


def dermoscopy(
    rng: np.random.Generator, *, size: int = 96, abnormal: bool
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One picture -> (pixels uint8 [size,size,3] RGB, mask bool [size,size] of the lesion, empty for healthy skin).

    A lesion covers 3 to 15 % of the picture, mostly 3 to 6 %.
    """
    if size < _MIN_SIDE:
        raise ArgumentError(f"dermoscopy: found size {size}; expected at least {_MIN_SIDE} pixels")
    picture = _skin(rng, size)
    mask = np.zeros((size, size), dtype=np.bool_)
    if abnormal:
        picture, mask = _with_lesion(picture, rng)
    picture = _with_freckles(picture, rng)
    picture = _with_hairs(picture, rng)
    picture = _with_bubbles(picture, rng)
    picture *= _light(rng, size)[:, :, None]
    noisy = picture + rng.normal(0.0, 0.006, picture.shape)  # the camera's
    return np.rint(np.clip(noisy, 0.0, 1.0) * 255).astype(np.uint8), mask


def write_demo(
    folder: Path, *, seed: int = 0, size: int = 96, train: int = 240, test_normal: int = 60, test_abnormal: int = 60
) -> None:
    """Write train/normal, test/normal, test/abnormal and ground_truth/abnormal as PNG into a new or empty folder.

    Each picture depends on the seed, its folder and its number alone, not on how many there are.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder; name another, or empty it first")
    parts = {"train/normal": train, "test/normal": test_normal, "test/abnormal": test_abnormal}
    for part, (place, count) in enumerate(parts.items()):
        abnormal = place.endswith("abnormal")
        (folder / place).mkdir(parents=True, exist_ok=True)
        if abnormal:
            (folder / "ground_truth" / "abnormal").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels, mask = dermoscopy(sample_rng(seed, part, index), size=size, abnormal=abnormal)
            write_image(folder / place / f"{index:04d}.png", pixels)
            if abnormal:
                write_image(folder / "ground_truth" / "abnormal" / f"{index:04d}.png", mask)


def _skin(rng: np.random.Generator, size: int) -> Field:
    """Skin [size,size,3]: a tone that wanders a little along the scale of tones, redness, and skin lines."""
    tone = (
        rng.uniform(0.7, len(_TONES) - 1.7) + 0.22 * noise(rng, (size, size), 4) + 0.06 * noise(rng, (size, size), 12)
    )
    tone = np.clip(tone, 0, len(_TONES) - 1)
    steps = np.arange(len(_TONES), dtype=np.float32)
    skin = np.stack([np.interp(tone, steps, _TONES[:, channel]) for channel in range(3)], axis=2).astype(np.float32)
    # Blood and veins: smooth, and much in some people where there is little in others, so that the spread of a
    # picture's colours tells little either.
    redness = 0.015 * rng.standard_normal() + rng.uniform(0.005, 0.06) * noise(rng, (size, size), 3)
    blueness = rng.uniform(0.0, 0.02) * noise(rng, (size, size), 3)
    skin *= 1 + redness[:, :, None] * np.array((0.6, -0.6, -0.4), dtype=np.float32)
    skin *= 1 + blueness[:, :, None] * np.array((-0.5, -0.1, 0.6), dtype=np.float32)
    skin *= 1 + rng.uniform(0.008, 0.013) * _skin_lines(rng, size)[:, :, None]
    return skin


def _skin_lines(rng: np.random.Generator, size: int) -> Field:
    """Two crossing families of fine lines, about N(0, 1)."""
    import cv2

    first = rng.uniform(0, 180)
    lines = np.zeros((size, size), dtype=np.float32)
    for angle in (first, first + rng.uniform(50, 90)):
        side = 2 * size
        grain = rng.standard_normal((side * 2 // 5, side // 12)).astype(np.float32)
        long = cv2.resize(grain, (side, side), interpolation=cv2.INTER_LINEAR)
        # The middle of the larger field is moved to the middle of the picture.
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0) - np.array([[0, 0, size / 2]])
        lines += cv2.warpAffine(long, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return lines


def _with_lesion(skin: Field, rng: np.random.Generator) -> tuple[Field, NDArray[np.bool_]]:
    size = skin.shape[0]
    shape = (size, size)
    place = ellipse(rng, shape, area=(0.05, 0.15) if rng.random() < 0.3 else (0.03, 0.06))
    radius = np.hypot(place.along, place.across)
    ragged = 0.28 * noise(rng, shape, 9) * np.exp(-np.square(radius) / 4)
    opacity = outline((ragged - radius).astype(np.float32), place.area, 0.3)
    # Which pigment where: each prevails in patches, so that every lesion has two colours at least.
    share = np.stack([np.exp(2.5 * noise(rng, shape, 14) + rng.uniform(-0.8, 0.8)) for _ in _PIGMENTS], axis=2)
    share /= share.sum(axis=2, keepdims=True)
    colour = share.astype(np.float32) @ _PIGMENTS
    # The local skin's brightness; darker skin is darkened less, or there would be nothing left to see.
    local = float(skin[opacity > 0].mean())
    level = local * np.interp(local, (0.25, 0.8), (1.6, 1.0)) * rng.uniform(0.85, 1.1)
    pattern = 1 + 0.14 * noise(rng, shape, 24) - _pattern(place, rng, size)
    lesion = colour * (level * pattern)[:, :, None]
    blend = opacity[:, :, None] * np.float32(rng.uniform(0.8, 0.95))
    return (skin + blend * (lesion - skin)).astype(np.float32), opacity > 0


def _pattern(place: Ellipse, rng: np.random.Generator, size: int) -> Field:
    """Darkening [size,size] within a lesion: radial streaks at its rim, or dots."""
    radius = np.hypot(place.along, place.across)
    if rng.random() < 0.5:
        angle = np.arctan2(place.across, place.along)
        rays = np.cos(rng.integers(9, 15) * angle + 1.5 * noise(rng, (size, size), 8))
        return np.asarray(0.5 * np.clip(rays, 0, 1) * np.clip(2 * radius - 0.6, 0, 1), dtype=np.float32)
    dots = noise(rng, (size, size), size / 3.5)
    return np.asarray(0.55 * np.clip(2.5 * (dots - 0.6), 0, 1), dtype=np.float32)


def _with_freckles(picture: Field, rng: np.random.Generator) -> Field:
    size = picture.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    shade = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.integers(0, 7)):
        centre_y, centre_x = rng.uniform(0, size, 2)
        width = size / 96 * rng.uniform(0.8, 1.7)
        distance = (np.square(y - centre_y) + np.square(x - centre_x)) / (2 * width**2)
        shade += np.float32(rng.uniform(0.12, 0.3)) * np.exp(-distance)
    brown = 1 - np.minimum(shade, 0.35)[:, :, None] * np.array((0.7, 1.0, 1.1), dtype=np.float32)
    return np.asarray(picture * brown, dtype=np.float32)


def _with_hairs(picture: Field, rng: np.random.Generator) -> Field:
    """0 to 8 thin curved hairs, drawn at four times the size for fractional widths."""
    import cv2

    size, scale = picture.shape[0], 4
    canvas = np.zeros((size * scale, size * scale), dtype=np.uint8)
    bend = np.linspace(0, 1, 12)[:, None]
    for _ in range(min(rng.integers(0, 9), rng.integers(0, 9))):  # few, as a rule
        start = rng.uniform(0, size, 2)
        angle, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.3, 0.9)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]]) * rng.uniform(-0.25, 0.25)
        points = (start + length * (bend * along + 4 * bend * (1 - bend) * across)) * scale
        thickness = max(1, round(size / 96 * rng.uniform(0.8, 2.2)))
        ink = int(rng.integers(70, 150))
        cv2.polylines(canvas, [np.rint(points).astype(np.int32)], False, ink, thickness, cv2.LINE_AA)
    opacity = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)[:, :, None] / 255
    hair = np.array((0.16, 0.11, 0.09), dtype=np.float32) * rng.uniform(0.6, 1.6)
    return (picture + opacity * (hair - picture)).astype(np.float32)


def _with_bubbles(picture: Field, rng: np.random.Generator) -> Field:
    """Gel bubbles (bright rings) and specular dots."""
    import cv2

    size, scale = picture.shape[0], 4
    canvas = np.zeros((size * scale, size * scale), dtype=np.uint8)
    for _ in range(rng.integers(0, 4)):
        x, y = (int(value) for value in rng.integers(0, size * scale, 2))
        radius = max(2, round(size / 96 * scale * rng.uniform(0.8, 2.6)))
        ring = rng.random() < 0.5
        cv2.circle(canvas, (x, y), radius, int(rng.integers(70, 150)), scale // 2 if ring else -1, cv2.LINE_AA)
    opacity = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)[:, :, None] / 255
    return (picture + 0.45 * opacity * (1 - picture)).astype(np.float32)


def _light(rng: np.random.Generator, size: int) -> Field:
    """Brightness factors: vignetting and a slight gradient."""
    along = np.linspace(-1, 1, size, dtype=np.float32)
    y, x = along[:, None], along[None, :]
    slope, angle = rng.uniform(0, 0.12), rng.uniform(0, 2 * np.pi)
    vignette = rng.uniform(0, 0.2) * (np.square(x) + np.square(y))
    gradient = slope * (np.cos(angle) * x + np.sin(angle) * y)
    return np.asarray((1 - vignette) * (1 + gradient), dtype=np.float32)
