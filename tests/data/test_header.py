"""What is refused before it is decoded, or because it was not decoded as declared."""

from __future__ import annotations

import os
import resource
import struct
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from image_files import chunk, encode, picture, pillow, refused, tiff
from normscan.data.read import read_image
from normscan.errors import ImageError, InputError
from normscan.files import sha256


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_truncated_files_are_refused(tmp_path, suffix, capfd):
    data = encode(suffix, picture())
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[: int(share * len(data))])
        refused(path, "ends early|expected|damaged")
    for lost in (1, 2, 5):
        path.write_bytes(data[:-lost])
        refused(path, "ends early|expected|damaged")
    assert capfd.readouterr().err == ""


def test_half_a_png_with_an_end_is_refused(tmp_path):
    data = encode(".png", picture())
    rows = b"".join(b"\0" + row.tobytes() for row in picture()[:24])
    path = tmp_path / "short.png"
    path.write_bytes(data[:33] + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    refused(path, "damaged")
    path.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    refused(path, r"chunk IDAT at byte 33 is damaged \(CRC\)")


def test_end_of_a_thumbnail_is_not_the_end_of_a_jpeg(tmp_path):
    thumbnail, whole = encode(".jpg", picture(12, 16)), encode(".jpg", picture())
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path = tmp_path / "camera.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(whole[:2] + segment + whole[2 : len(whole) // 2])
    refused(path, "end-of-image")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"file,group\na.png,1\n", "found a text file; expected PNG, JPEG, TIFF, BMP or WebP"),
        (bytes(128) + b"DICM" + bytes(64), "found a DICOM file"),
        (b"\x00\x01\x02\x03" * 20, "first bytes 00 01 02 03"),
        (b"\x89PNG\r\n\x1a\n", "ends early"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, content, match):
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    refused(path, match)


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path / "gone.png", "no such file")
    refused(tmp_path, "found a folder")
    refused(tmp_path / "a\0b.png", "cannot be opened")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refused(pipe, "found a pipe")  # and without waiting for a writer
    with pytest.raises(InputError, match="no such file"):
        sha256(tmp_path / "gone.png")
    with pytest.raises(InputError, match="no such file"):
        sha256(pipe)


def test_a_huge_picture_in_a_small_file_is_refused_at_once(tmp_path):
    side = 20_000
    deflate = zlib.compressobj(1)
    row = bytes((side + 1) * 100)
    body = b"".join(deflate.compress(row) for _ in range(side // 100)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    assert path.stat().st_size < 2_000_000
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    refused(path, "found 20000 x 20000 = 400000000 pixels; expected at most 100000000")
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000  # kB; decoded it takes 400 MB


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_pixel_limit_holds_for_every_format(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(suffix, picture()))
    assert read_image(path, max_pixels=48 * 64).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="found 64 x 48 = 3072 pixels; expected at most 3071"):
        read_image(path, max_pixels=48 * 64 - 1)


@pytest.mark.parametrize(
    ("value", "match"),
    [(np.nan, "1 values that are NaN"), (np.inf, "1 values"), (1.5, "from 0.5 to 1.5"), (-0.25, "from -0.25 to 0.5")],
)
def test_float_values_outside_the_range_are_refused(tmp_path, value, match):
    pixels = np.full((6, 7), 0.5, np.float32)
    pixels[2, 3] = value
    (tmp_path / "f.tif").write_bytes(encode(".tif", pixels))
    refused(tmp_path / "f.tif", match)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.float64])
def test_other_depths_are_refused(tmp_path, dtype):
    (tmp_path / "d.tif").write_bytes(encode(".tif", np.ones((6, 7), dtype)))
    refused(tmp_path / "d.tif", "expected grey, palette or RGB")


def test_tiffs_that_would_be_misread_are_refused(tmp_path):
    deep = picture().astype(np.uint16)
    rgb = Image.fromarray(picture())
    for data in (
        tiff(deep, planar=2),  # OpenCV 4.10 and 5.0 fill one plane and leave the others unwritten
        tiff(deep[:, :, :1], photometric=0),  # not inverted
        pillow(rgb.convert("LAB"), "TIFF"),
        pillow(rgb.convert("CMYK"), "TIFF"),
        pillow(rgb.convert("LA"), "TIFF"),
    ):
        (tmp_path / "t.tif").write_bytes(data)
        refused(tmp_path / "t.tif", "found a TIFF with")


@pytest.mark.parametrize("form", ["TIFF", "WEBP", "PNG"])
def test_more_than_one_picture_is_refused(tmp_path, form):
    first, second = Image.fromarray(picture()), Image.fromarray(picture()[::-1].copy())
    (tmp_path / "many").write_bytes(pillow(first, form, save_all=True, append_images=[second]))
    refused(tmp_path / "many", "expected one picture")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_damage_anywhere_gives_pixels_or_an_image_error(tmp_path, suffix):
    rng = np.random.default_rng(11)
    data = np.frombuffer(encode(suffix, picture(16, 16)), np.uint8)
    path = tmp_path / f"f{suffix}"
    for _ in range(150):
        damaged = data.copy()
        places = rng.integers(0, min(len(data), 120) if rng.random() < 0.7 else len(data), rng.integers(1, 5))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        with suppress(ImageError):
            assert read_image(path).ndim in (2, 3)


# Masks, samples, hashes, writing
