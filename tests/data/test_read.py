"""Every format, every kind of damage. Files are written by OpenCV and Pillow, and by hand where neither would."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from normscan.data.read import read, read_image, read_mask, write_image
from normscan.data.sample import Record
from normscan.errors import ArgumentError, Error, ImageError, InputError
from normscan.files import sha256

PLAIN_TIFF = [cv2.IMWRITE_TIFF_COMPRESSION, 1]


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Smooth random RGB (or grey) uint8, so that lossy formats stay near it."""
    coarse = np.random.default_rng(7).integers(30, 226, (5, 6, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


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


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [1, 37])
def test_lossless_formats_come_back_exactly(tmp_path, suffix, channels, side):
    pixels = picture(side, 2 * side - 1, 3)
    pixels = pixels[:, :, 0].copy() if channels == 1 else pixels
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encode(suffix, pixels))
    found = read_image(path)
    expected = np.dstack([pixels] * 3) if suffix == ".webp" and channels == 1 else pixels  # WebP has no grey
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay_sixteen_bits(tmp_path, suffix, channels):
    pixels = np.random.default_rng(0).integers(0, 65536, (9, 11, 3)).astype(np.uint16)
    pixels = pixels[:, :, 0].copy() if channels == 1 else pixels
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(encode(suffix, pixels))
    found = read_image(str(path))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 3)])
def test_float_tiff_comes_back_exactly(tmp_path, shape):
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    pixels.flat[:2] = 0, 1
    (tmp_path / "float.tif").write_bytes(encode(".tif", pixels))
    found = read_image(tmp_path / "float.tif")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 95, "progressive": True}])
def test_jpeg_is_rgb(tmp_path, options):
    pixels = picture()
    (tmp_path / "a.jpg").write_bytes(pillow(Image.fromarray(pixels), "JPEG", **options))
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - pixels).max() < 25
    (tmp_path / "grey.jpg").write_bytes(pillow(Image.fromarray(pixels[:, :, 0]), "JPEG", **options))
    assert read_image(tmp_path / "grey.jpg").shape == (48, 64)


def test_suffix_does_not_matter(tmp_path):
    (tmp_path / "really_a_png.jpg").write_bytes(encode(".png", picture()))
    np.testing.assert_array_equal(read_image(tmp_path / "really_a_png.jpg"), picture())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(tmp_path, orientation, form):
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    path = tmp_path / "turned"
    path.write_bytes(pillow(Image.fromarray(picture()), form, exif=exif, **options))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (2 if form == "JPEG" else 0)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 160, 60), (40, 60, 190), (240, 240, 240)])
def test_cmyk_jpeg_becomes_rgb(tmp_path, colour):
    solid = Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).convert("CMYK")
    (tmp_path / "cmyk.jpg").write_bytes(pillow(solid, "JPEG", quality=95))
    found = read_image(tmp_path / "cmyk.jpg")
    assert found.shape == (32, 32, 3)
    assert np.abs(found.astype(int) - colour).max() < 12


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_or_composited_over_black(tmp_path, dtype):
    full = np.iinfo(dtype).max
    rgba = np.random.default_rng(3).integers(0, full + 1, (12, 10, 4)).astype(dtype)
    clear = tmp_path / "clear.png"
    clear.write_bytes(encode(".png", rgba))
    expected = np.rint(rgba[:, :, :3].astype(np.float64) * rgba[:, :, 3:] / full)
    assert np.abs(read_image(clear) - expected).max() <= 1
    rgba[:, :, 3] = full
    (tmp_path / "opaque.png").write_bytes(encode(".png", rgba))
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), rgba[:, :, :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_alpha_is_multiplied_in_once(tmp_path, dtype):
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    rgba = (np.random.default_rng(4).random((6, 5, 4)) * full).astype(dtype)
    for extra, expected in ((1, rgba[:, :, :3]), (2, rgba[:, :, :3] * (rgba[:, :, 3:] / full))):
        (tmp_path / "alpha.tif").write_bytes(tiff(rgba, extra=extra))
        np.testing.assert_allclose(read_image(tmp_path / "alpha.tif"), expected, atol=1e-6 if full == 1 else 1)


def test_fourth_byte_of_a_bmp_is_padding(tmp_path):
    rgbx = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    (tmp_path / "a.bmp").write_bytes(encode(".bmp", rgbx))
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp"), picture())


def test_palette_and_one_bit_pictures(tmp_path):
    indexed = Image.fromarray(picture()).convert("P")
    for form in ("PNG", "TIFF", "BMP"):
        (tmp_path / "p").write_bytes(pillow(indexed, form))
        np.testing.assert_array_equal(read_image(tmp_path / "p"), np.asarray(indexed.convert("RGB")))
    bits = picture()[:, :, 0] > 127
    for form in ("PNG", "TIFF"):
        (tmp_path / "bits").write_bytes(pillow(Image.fromarray(bits), form))
        np.testing.assert_array_equal(read_image(tmp_path / "bits") > 0, bits)


def test_white_is_zero_tiff_is_inverted(tmp_path):
    grey = picture()[:, :, :1].copy()
    (tmp_path / "w.tif").write_bytes(tiff(grey, photometric=0))
    np.testing.assert_array_equal(read_image(tmp_path / "w.tif"), 255 - grey[:, :, 0])


# What is refused


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


def test_mask_is_true_where_any_channel_is_not_zero(tmp_path):
    mask = np.zeros((8, 6, 3), np.uint8)
    mask[1, 2], mask[3, 4, 1], mask[5, 5] = 255, 1, (0, 0, 9)
    for suffix in (".png", ".bmp"):
        (tmp_path / f"m{suffix}").write_bytes(encode(suffix, mask))
        found = read_mask(tmp_path / f"m{suffix}", (8, 6, 3))
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, mask.any(axis=2))
    (tmp_path / "g.png").write_bytes(encode(".png", mask[:, :, 0].copy()))
    np.testing.assert_array_equal(read_mask(tmp_path / "g.png", (8, 6)), mask[:, :, 0] > 0)
    with pytest.raises(ImageError, match="the mask is 6 x 8 pixels, its picture 8 x 6"):
        read_mask(tmp_path / "g.png", (6, 8))


def test_read_gives_pixels_and_mask(tmp_path):
    write_image(tmp_path / "a.png", picture())
    write_image(tmp_path / "m.png", picture()[:, :, 0] > 100)
    assert read(Record(tmp_path / "a.png")).mask is None
    record = Record(tmp_path / "a.png", label=1, mask=tmp_path / "m.png")
    sample = read(record)
    assert sample.record is record
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.pixels, picture())
    np.testing.assert_array_equal(sample.mask, picture()[:, :, 0] > 100)


def test_a_file_may_vanish_between_listing_and_reading(tmp_path):
    write_image(tmp_path / "a.png", picture())
    record = Record(tmp_path / "a.png")
    record.path.unlink()
    with pytest.raises(ImageError, match=r"a\.png: no such file; it was moved or deleted"):
        read(record)


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(256)) * 10_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(bytes(range(256)) * 10_000).hexdigest()


@pytest.mark.parametrize("pixels", [picture(), picture()[:, :, 0], picture().astype(np.uint16) * 257])
def test_written_images_come_back(tmp_path, pixels):
    write_image(tmp_path / "w.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "w.png"), pixels)
    assert [file.name for file in tmp_path.iterdir()] == ["w.png"]


def test_writing_replaces_whole_files_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "w.png"
    write_image(path, picture())

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(Error, match=r"w\.png cannot be written: No space left on device"):
        write_image(path, 255 - picture())
    assert [file.name for file in tmp_path.iterdir()] == ["w.png"]
    np.testing.assert_array_equal(read_image(path), picture())


def test_what_png_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="found float32 pixels of shape"):
        write_image(tmp_path / "w.png", np.zeros((4, 4), np.float32))
    with pytest.raises(ArgumentError, match=r"of shape \[4, 4, 2\]"):
        write_image(tmp_path / "w.png", np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ArgumentError, match=r"expected '\.png'"):
        write_image(tmp_path / "w.jpg", picture())
    assert not any(tmp_path.iterdir())


def test_importing_the_package_loads_neither_opencv_nor_torch():
    code = "import sys, normscan.data, normscan.data.synthetic; print(sorted({'cv2', 'torch'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
