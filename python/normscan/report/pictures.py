"""Anomaly maps as colours: heat maps, overlays on the image, and pictures packed into the page."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.data.read import read_image, write_image
from normscan.errors import ArgumentError

Picture = npt.NDArray[np.uint8]  # [H,W,3] RGB
Map = npt.NDArray[np.floating]  # [H,W]

# Ten steps of "inferno" (S. van der Walt and N. Smith, 2015, CC0): perceptually uniform, readable without colour vision
# and in print. Between the steps, linear interpolation is off by at most a few of 255 levels.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (22, 11, 57),
        (66, 10, 104),
        (106, 23, 110),
        (147, 38, 103),
        (188, 55, 84),
        (221, 81, 58),
        (243, 120, 25),
        (252, 165, 10),
        (246, 215, 70),
        (252, 255, 164),
    ],
    dtype=np.float64,
)
_UNKNOWN = (128, 128, 128)  # colour of values that are not finite, which is in no place of the table
_OUTLINE = (80, 220, 235)  # of masks; cyan stands out from every step of the table
_STRIP = 256  # rows
_OPAQUE = 0.6  # of an overlay at the top of the scale


def scale_of(maps: Iterable[Map]) -> tuple[float, float]:
    """One (low, high) for all maps of a page: their 1 and 99.5 percentiles; (0, 1) where no value is finite.

    Each map gives at most some 10,000 of its values, evenly spaced, so that a thousand large maps stay cheap.
    """
    thinned = [values[np.isfinite(values)] for values in (np.ravel(m)[:: max(1, np.size(m) // 10_000)] for m in maps)]
    values = np.concatenate(thinned) if thinned else np.zeros(0)
    if len(values) == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (1, 99.5))
    return float(low), float(high)


def heat(values: Map, low: float, high: float) -> Picture:
    """Map [H,W] -> colours [H,W,3] uint8: black at `low` and below, pale yellow at `high` and above, grey for NaN."""
    values = _flat_map(values)
    place = _level(values, low, high) * (len(_INFERNO) - 1)
    below = np.minimum(place.astype(np.intp), len(_INFERNO) - 2)
    share = (place - below)[..., None]
    colours = _INFERNO[below] * (1 - share) + _INFERNO[below + 1] * share
    colours[~np.isfinite(values)] = _UNKNOWN
    picture: Picture = np.rint(colours).astype(np.uint8)
    return picture


def overlay(image: Picture, values: Map, low: float, high: float, mask: npt.NDArray[np.bool_] | None = None) -> Picture:
    """Image [H,W,3] uint8 under its heat map, more opaque the higher the value; the mask [H,W] as an outline.

    A map or mask of another size is stretched to the image.
    """
    import cv2

    base = _flat_image(image)
    size = (base.shape[1], base.shape[0])
    flat = _flat_map(values)
    if flat.shape != base.shape[:2]:
        flat = np.asarray(cv2.resize(flat, size, interpolation=cv2.INTER_LINEAR), np.float64)
    mixed = np.empty_like(base)
    for top in range(0, len(base), _STRIP):  # a large picture in float64 at once would take gigabytes
        rows = slice(top, top + _STRIP)
        alpha = (_OPAQUE * _level(flat[rows], low, high))[..., None]
        mixed[rows] = np.rint(base[rows] * (1 - alpha) + heat(flat[rows], low, high) * alpha)
    return mixed if mask is None else outline(mixed, mask)


def outline(image: Picture, mask: npt.NDArray[np.bool_], share: float = 1 / 130) -> Picture:
    """The image [H,W,3] with the border of the mask drawn on it, about that share of the longer side wide."""
    import cv2

    drawn = _flat_image(image).copy()
    full = np.asarray(mask).astype(np.uint8)
    if full.ndim != 2:
        raise ArgumentError(f"outline: mask has shape {list(full.shape)}, expected [H,W]")
    if full.shape != drawn.shape[:2]:
        full = np.asarray(cv2.resize(full, (drawn.shape[1], drawn.shape[0]), interpolation=cv2.INTER_NEAREST))
    lines, _ = cv2.findContours(full, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, lines, -1, _OUTLINE, thickness=max(1, round(max(drawn.shape) * share)))
    return drawn


def eight_bit(pixels: npt.NDArray[Any]) -> Picture:
    """A decoded picture ([H,W] or [H,W,3]; uint8, uint16, or floating in 0..1) as uint8 [H,W,3], only to look at."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return _flat_image(np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels)


def write_overlay(target: Path, source: Path, values: Map, scale: tuple[float, float] | None = None) -> None:
    """Write the picture `source` with its map over it as a PNG; see `overlay`.

    Without a scale the map's own is taken (`scale_of`), and colours then say where, not how much.
    """
    low, high = scale or scale_of([values])
    write_image(target, overlay(eight_bit(read_image(source)), values, low, high))


def data_uri(image: Picture, side: int = 288) -> str:
    """The image, shrunk to at most `side` pixels, as a JPEG in a data: URI."""
    import cv2

    picture = _flat_image(image)
    factor = side / max(picture.shape[:2])
    if factor < 1:
        size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 86])
    if not done:
        raise ArgumentError(f"data_uri: OpenCV could not encode an image of shape {list(picture.shape)} as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def gradient() -> str:
    """The colour table as a CSS gradient, low to high."""
    return "linear-gradient(to right," + ",".join("#" + bytes(int(c) for c in row).hex() for row in _INFERNO) + ")"


def _level(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """Place on the scale, 0..1; a scale without extent puts what is above it at 1; NaN at 0."""
    if not np.isfinite([low, high]).all() or low > high:
        raise ArgumentError(f"heat: the scale goes from {low} to {high}, expected two finite numbers, low <= high")
    level = (values - low) / (high - low) if high > low else (values > high).astype(np.float64)
    return np.clip(np.where(np.isnan(level), 0, level), 0, 1)


def _flat_map(values: Map) -> npt.NDArray[np.float64]:
    flat = np.asarray(values, dtype=np.float64)
    if flat.ndim != 2:
        raise ArgumentError(f"heat: map has shape {list(flat.shape)}, expected [H,W]")
    return flat


def _flat_image(image: Picture) -> Picture:
    picture = np.asarray(image)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise ArgumentError(f"picture is {picture.dtype} of shape {list(picture.shape)}, expected uint8 [H,W,3], RGB")
    return np.ascontiguousarray(picture)
