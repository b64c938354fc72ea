"""What is cut out of a picture where a part was found, and the picture with the boxes on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.data.segment.match import Match

Pixels = npt.NDArray[Any]
"""[H,W] or [H,W,3], uint8 or uint16: what can be written."""

_COLOUR = (1.0, 0.25, 0.05)
_FRACTION_BITS = 4


def crop(picture: Pixels, match: Match) -> Pixels:
    """The part, upright and in the template's own size, whatever its angle and scale.

    A part that is neither turned nor scaled is cut out at whole pixels, so that no crop is softer than the picture.
    """
    import cv2

    width, height = (round(side / match.scale) for side in (match.width, match.height))
    if match.scale == 1 and match.angle % 360 == 0:
        left = min(max(round(match.x - match.width / 2), 0), picture.shape[1] - width)
        top = min(max(round(match.y - match.height / 2), 0), picture.shape[0] - height)
        return np.ascontiguousarray(picture[top : top + height, left : left + width])
    # From the crop's pixel centres to the picture's.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), match.angle, match.scale)
    matrix[:, 2] += np.array([match.x - width / 2, match.y - height / 2])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def draw(picture: Pixels, matches: Sequence[Match]) -> Pixels:
    """The picture in colour with each box on it, a thicker line at its upper side, number and score beside it."""
    import cv2

    drawn = np.ascontiguousarray(np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy())
    colour = tuple(part * int(np.iinfo(drawn.dtype).max) for part in _COLOUR)
    thick = max(1, round(max(drawn.shape[:2]) / 500))
    size = max(drawn.shape[:2]) / 1400 + 0.2
    for number, match in enumerate(matches):
        # Half a pixel less: OpenCV counts from the first pixel's centre.
        points = np.rint((match.corners - 0.5) * 2**_FRACTION_BITS).astype(np.int32)
        for closed, width in ((points, thick), (points[:2], 3 * thick)):
            cv2.polylines(drawn, [closed], len(closed) > 2, colour, width, cv2.LINE_AA, _FRACTION_BITS)
        text = f"{number} {match.score:.2f}"
        (across, down), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        left, top, _, tall = match.bounds
        above, below = top - 3 * thick, top + tall + 3 * thick + down
        place = (int(min(max(left, 0), max(drawn.shape[1] - across, 0))), int(above if above > down else below))
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
    return drawn
