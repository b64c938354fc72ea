"""Image files made on the fly, sound and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from normscan.data.read import read_image
from normscan.errors import ImageError

PLAIN_TIFF = [cv2.IMWRITE_TIFF_COMPRESSION, 1]


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Smooth random RGB (or grey) uint8, so that lossy formats stay near it."""
    coarse = np.random.default_rng(7).integers(30, 226, (5, 6, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def disc(height: int = 40, width: int = 48) -> np.ndarray:
    """A dark blue disc on orange, brighter to the right; uint8 [H,W,3]."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([214 + 20 * x / width, 150 + 20 * x / width, np.full(x.shape, 96.0)], axis=2)
    picture[(y - 18) ** 2 + (x - 20) ** 2 < 100] = (32, 32, 96)
    return picture.round().astype(np.uint8)


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    bgr = pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    parameters = {".tif": PLAIN_TIFF, ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(suffix, [])
    done, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), parameters)
    assert done
    return data.tobytes()


def pillow(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(pixels: np.ndarray, *, extra: int | None = None, photometric: int = 2, planar: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of [H,W,C], for what OpenCV and Pillow do not write."""
    height, width, channels = pixels.shape
    body = (pixels if planar == 1 else np.moveaxis(pixels, 2, 0)).tobytes()
    strips = 1 if planar == 1 else channels
    lengths = [len(body) // strips] * strips
    offsets = [8 + index * lengths[0] for index in range(strips)]
    fields = [
        (256, [width]),
        (257, [height]),
        (258, [8 * pixels.itemsize] * channels),
        (259, [1]),
        (262, [photometric]),
    ]
    fields += [(273, offsets), (277, [channels]), (278, [height]), (279, lengths), (284, [planar])]
    fields += [(338, [extra])] if extra is not None else []
    fields += [(339, [3 if pixels.dtype.kind == "f" else 1] * channels)]
    entries, tail = b"", b""
    start = 8 + len(body)
    for tag, values in fields:
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            place = struct.pack("<I", start + len(tail))
            packed, tail = place, tail + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<I", start + len(tail))
    return head + body + tail + struct.pack("<H", len(fields)) + entries + bytes(4)


def refused(path: Path, match: str) -> None:
    """The message names the file and says what was found."""
    with pytest.raises(ImageError, match=match) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


# What can be read
