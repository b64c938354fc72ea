"""Every format comes back as it was written: by OpenCV and Pillow, and by hand where neither would."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from image_files import encode, picture, pillow, tiff
from normscan.data.read import read, read_image, read_mask, write_image
from normscan.data.sample import Record
from normscan.errors import ArgumentError, Error, ImageError
from normscan.files import sha256


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
