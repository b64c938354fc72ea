"""Finding a part in a larger picture: normalised correlation with a template, at several scales and rotations.

Positions are in pixels from the picture's upper left corner, so that the first pixel's centre lies at (0.5, 0.5), as in
COCO; angles are in degrees, anti-clockwise as seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError, InputError

Image = npt.NDArray[Any]
"""[H,W] or [H,W,3], as read."""
Plane = npt.NDArray[np.float32]

FLAT = 1e-5
"""Variance, of values in 0..1, below which a window shows nothing: its correlation would be of rounding errors."""
SMALLEST, LARGEST = 0.05, 20.0
"""Scales."""
_PEAKS = 256
"""Of one rotation and scale; a picture has that many where the template says little."""
_STEPS = 6
"""Of the search between pixels; two or three are enough."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, and what counts as found."""

    threshold: float = 0.5
    """Least correlation, at most 1."""
    overlap: float = 0.25
    """Of two boxes that share more (intersection over union), the better one stays."""
    limit: int = 8
    """Parts in one picture."""
    scales: tuple[float, ...] = (1.0,)
    angles: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ArgumentError(f"segment: threshold is {self.threshold}, expected above 0, at most 1")
        if not 0 <= self.overlap < 1:
            raise ArgumentError(f"segment: overlap is {self.overlap}, expected 0 to below 1")
        if self.limit < 1:
            raise ArgumentError(f"segment: limit is {self.limit}, expected at least 1")
        if not self.scales or not all(SMALLEST <= scale <= LARGEST for scale in self.scales):
            raise ArgumentError(
                f"segment: scales are {list(self.scales)}, expected one or more from {SMALLEST} to {LARGEST}"
            )
        if not self.angles or not all(math.isfinite(angle) for angle in self.angles):
            raise ArgumentError(f"segment: angles are {list(self.angles)}, expected one or more numbers")


@dataclass(frozen=True, slots=True)
class Match:
    """A part that was found: an upright or rotated box."""

    score: float
    x: float
    """Of the centre."""
    y: float
    width: float
    """Of the box before it is turned."""
    height: float
    angle: float = 0.0
    scale: float = 1.0

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """[4,2] x and y: what is the template's upper left, upper right, lower right, lower left."""
        half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [self.width / 2, self.height / 2]
        c, s = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return np.asarray(half @ np.array([[c, -s], [s, c]]) + [self.x, self.y])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, top, width, height) of the upright box around it."""
        (left, top), (right, bottom) = self.corners.min(0), self.corners.max(0)
        return float(left), float(top), float(right - left), float(bottom - top)


class NoMatchError(InputError):
    """Nothing in the picture is like the template."""


def find_parts(picture: Image, template: Image, search: Search) -> list[Match]:
    """The best matches, best first: at most `search.limit`, none overlapping another by more than `search.overlap`.

    A part must lie wholly inside the picture. Raises InputError for a template that is larger than the picture or shows
    nothing, NoMatchError (with the best score) where none reaches the threshold.
    """
    scene, part = _alike(picture, template)
    if part.reshape(-1, part.shape[-1] if part.ndim == 3 else 1).var(0).max() < FLAT:
        raise InputError("the template's pixels are all alike, expected a part that can be told from its surroundings")
    turned = [
        variant
        for scale in search.scales
        for angle in search.angles
        if (variant := _Variant(part, scale, angle)).fits(scene)
    ]
    if not turned:
        sizes = [f"{p.shape[1]} x {p.shape[0]}" for p in (template, picture)]
        raise InputError(
            f"the template ({sizes[0]} pixels, scales {', '.join(f'{s:g}' for s in search.scales)}) is larger than the "
            f"picture ({sizes[1]}); expected a smaller one, cut out of such a picture, or smaller scales"
        )
    best = -1.0
    found: list[Match] = []
    contrast = _Contrast(scene)
    for variant in turned:
        response = variant.response(scene, contrast)
        best = max(best, float(response.max()))
        found += variant.matches(response, search.threshold)
    if not found:
        raise NoMatchError(
            f"no match: the best score is {best:.3f}, below the threshold of {search.threshold:g}; lower it, add "
            "scales or rotations, or cut a template out of this picture"
        )
    kept = _apart(sorted(found, key=lambda match: -match.score), search)
    by_kind = {(variant.scale, variant.angle): variant for variant in turned}
    return [by_kind[match.scale, match.angle].refined(scene, match) for match in kept]


class _Contrast:
    """Where windows of a shape show something at all."""

    def __init__(self, scene: Plane) -> None:
        grey = scene if scene.ndim == 2 else scene.mean(2)
        self._centred = np.ascontiguousarray(grey - np.median(grey), np.float32)
        self._squares = np.square(self._centred)

    def __call__(self, mask: Plane) -> npt.NDArray[np.bool_]:
        import cv2

        count = float(mask.sum())
        mean, square = (
            cv2.matchTemplate(plane, mask, cv2.TM_CCORR) / count for plane in (self._centred, self._squares)
        )
        return np.asarray(square - np.square(mean) >= FLAT)


@dataclass
class _Variant:
    """The template at one scale and rotation: pixels, and a mask of those that it covers wholly."""

    part: Plane
    scale: float
    angle: float
    pixels: Plane = field(init=False)
    mask: Plane = field(init=False)

    def __post_init__(self) -> None:
        import cv2

        height, width = self.part.shape[:2]
        c, s = (abs(f(math.radians(self.angle))) for f in (math.cos, math.sin))
        # A hair's breadth less, so that 90 degrees do not add a pixel.
        across = math.ceil(self.scale * (c * width + s * height) - 1e-6)
        down = math.ceil(self.scale * (s * width + c * height) - 1e-6)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle, self.scale)
        matrix[:, 2] += np.array([(across - width) / 2, (down - height) / 2])
        size = (across, down)
        # Shrinking averages first, for bilinear reading between pixels would leave out most of them.
        blur = 0.5 * math.sqrt(max(0.0, self.scale**-2 - 1))
        source = self.part if blur == 0 else cv2.GaussianBlur(self.part, (0, 0), blur)
        self.pixels = np.asarray(cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR))
        cover = cv2.warpAffine(np.ones((height, width), np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        self.mask = np.asarray(cover > 0.99).astype(np.float32)

    def fits(self, scene: Plane) -> bool:
        """Whether it has a place in the picture."""
        return bool(self.mask.shape[0] <= scene.shape[0] and self.mask.shape[1] <= scene.shape[1])

    def response(self, scene: Plane, contrast: _Contrast) -> Plane:
        """Correlation at every place [H-h+1,W-w+1], in -1..1; 0 where the picture shows nothing."""
        import cv2

        whole = bool(self.mask.all())
        found = cv2.matchTemplate(scene, self.pixels, cv2.TM_CCOEFF_NORMED, mask=None if whole else self.mask)
        found = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(np.where(contrast(self.mask), np.clip(found, -1.0, 1.0), 0.0), np.float32)

    def matches(self, response: Plane, threshold: float) -> Iterator[Match]:
        """Peaks that reach the threshold, each moved between the pixels by the parabola through its neighbours."""
        import cv2

        peaks = (response >= threshold) & (response == cv2.dilate(response, np.ones((3, 3), np.uint8)))
        rows, columns = np.nonzero(peaks)
        order = np.argsort(-response[rows, columns], kind="stable")[:_PEAKS]
        height, width = self.part.shape[:2]
        padded = np.pad(response, 1, mode="edge")
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            around = padded[row : row + 3, column : column + 3]
            yield Match(
                score=float(response[row, column]),
                x=column + _vertex(*around[1]) + self.mask.shape[1] / 2,
                y=row + _vertex(*around[:, 1]) + self.mask.shape[0] / 2,
                width=width * self.scale,
                height=height * self.scale,
                angle=self.angle,
                scale=self.scale,
            )

    def refined(self, scene: Plane, match: Match) -> Match:
        """The match moved to where template = gain * window + bias fits best, in the sense of least squares.

        The parabola through whole pixels leans, by up to half a pixel, to where the surroundings are more like the
        part, or along its lines; it is the start of a few steps of Gauss and Newton over the part's inside.
        """
        import cv2

        # Away from the rim, nothing of the surroundings is read.
        core = cv2.erode(self.mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        inside = (core if core.any() else self.mask) > 0
        wanted = self.pixels[inside].ravel().astype(np.float64)
        best = match
        score = self._correlation(self._window(scene, match), inside)
        for _ in range(_STEPS):
            window = self._window(scene, best)
            slopes = [cv2.Sobel(window, cv2.CV_32F, *order, ksize=3, scale=1 / 8)[inside] for order in ((1, 0), (0, 1))]
            known = [*slopes, window[inside]]
            columns = np.stack([*(k.ravel().astype(np.float64) for k in known), np.ones(wanted.size)], axis=1)
            across, down, gain, _ = np.linalg.lstsq(columns, wanted)[0]
            dx, dy = (float(v / gain) if gain > 0 else 0.0 for v in (across, down))
            moved = replace(best, x=best.x + dx, y=best.y + dy)
            now = self._correlation(self._window(scene, moved), inside)
            if now <= score or max(abs(moved.x - match.x), abs(moved.y - match.y)) > 1:
                break
            best, score = moved, now
        return best

    def _window(self, scene: Plane, match: Match) -> Plane:
        """What lies under the template, the picture read between its pixels."""
        import cv2

        down, across = self.mask.shape
        shift = np.array([[1, 0, match.x - across / 2], [0, 1, match.y - down / 2]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(scene, shift, (across, down), flags=flags, borderMode=cv2.BORDER_REPLICATE))

    def _correlation(self, window: Plane, inside: npt.NDArray[np.bool_]) -> float:
        count = int(inside.sum())
        one, other = (p[inside].reshape(count, -1).astype(np.float64) for p in (window, self.pixels))
        one, other = one - one.mean(0), other - other.mean(0)
        return float((one * other).sum() / max(math.sqrt((one**2).sum() * (other**2).sum()), 1e-12))


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through three values one step apart is highest: -0.5 to 0.5; 0 where it has no top."""
    bend = float(left) - 2 * float(middle) + float(right)
    return 0.0 if bend >= 0 else min(0.5, max(-0.5, (float(left) - float(right)) / (2 * bend)))


def _apart(ranked: Sequence[Match], search: Search) -> list[Match]:
    """Greedy suppression: from best to worst, those that overlap no better one too much."""
    kept: list[Match] = []
    for match in ranked:
        if len(kept) == search.limit:
            break
        if all(shared(match, other) <= search.overlap for other in kept):
            kept.append(match)
    return kept


def shared(one: Match, other: Match) -> float:
    """Intersection over union of two boxes, rotated or not."""
    import cv2

    # OpenCV turns clockwise.
    first, second = (((m.x, m.y), (m.width, m.height), -m.angle) for m in (one, other))
    crossing, points = cv2.rotatedRectangleIntersection(first, second)
    if crossing == cv2.INTERSECT_NONE:
        return 0.0
    common = float(cv2.contourArea(cv2.convexHull(points)))
    return common / (one.width * one.height + other.width * other.height - common)


def _alike(picture: Image, template: Image) -> tuple[Plane, Plane]:
    """Both as float32 in 0..1; where one is grey, both are (mean of the channels)."""
    values = [_unit(p) for p in (picture, template)]
    if values[0].ndim != values[1].ndim:
        values = [v if v.ndim == 2 else np.asarray(v.mean(2), np.float32) for v in values]
    return np.ascontiguousarray(values[0]), np.ascontiguousarray(values[1])


def _unit(pixels: Image) -> Plane:
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return np.asarray(pixels.astype(np.float32) / np.float32(top), np.float32)
