"""Augmentation of training images: what alters a picture without making it abnormal (`data.pseudo` does that).

Every draw comes from a generator seeded by hash(seed, epoch, index), so that neither the number of workers nor a
resumed run changes what an image looks like.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normscan.errors import ArgumentError

Pixels = NDArray[Any]
Field = NDArray[np.float32]

UNIT = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""What white is, by dtype."""

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

    check_pixels("augment", pixels)
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

    check_pixels("augment", pixels)
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

    check_pixels("augment", pixels)
    if pixels.ndim == 2:
        return pixels
    unit = np.float32(UNIT[str(pixels.dtype)])
    amounts = np.maximum(1 + strength * rng.standard_normal(3), 0.1)
    directions = np.maximum(_STAINS + 0.5 * strength * rng.standard_normal((3, 3)), 0.0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    light = 1 + 0.1 * strength * rng.standard_normal(3)
    change = (np.linalg.inv(_STAINS) @ (amounts[:, None] * directions)).astype(np.float32)
    transmitted = np.maximum(pixels.astype(np.float32) / unit, np.float32(1 / 255))
    density = cv2.transform(np.log(transmitted), change.T)
    changed: Pixels = np.clip(np.exp(density) * light.astype(np.float32), 0.0, 1.0) * unit
    return changed if unit == 1.0 else np.rint(changed).astype(pixels.dtype)


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> Field:
    """Smooth noise [H,W], about N(0, 1): `cells` independent values along the shorter side, cubic between them."""
    import cv2

    step = min(shape) / cells
    coarse = rng.standard_normal([max(2, round(side / step) + 1) for side in shape]).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def check_pixels(who: str, pixels: Pixels) -> None:
    """Raise an `ArgumentError` of `who` for what is no picture."""
    if str(pixels.dtype) not in UNIT or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ArgumentError(
            f"{who}: found {pixels.dtype} pixels of shape {list(pixels.shape)}; "
            "expected uint8, uint16 or float32, [H,W] or [H,W,C]"
        )
