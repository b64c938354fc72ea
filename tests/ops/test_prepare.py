"""The native preparation of pictures, and its inverse, against the reference; the reference against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from arrays import LAYOUTS, SIDES, Array, normal, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import prepare as reference
from reference import resample as reference_resample
from tolerances import assert_close

RESIZES = reference.RESIZES
DTYPES = ("uint8", "uint16", "float32")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SIDE = st.integers(1, 40)


def picture(*shape: int, dtype: str = "uint8") -> Array:
    """Noise over the whole range of the dtype."""
    if dtype == "float32":
        return uniform(*shape)
    return np.random.default_rng(shape).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def run(image: Array, size: tuple[int, int], resize: str, mean: list[float], std: list[float]) -> Array:
    out = unwritten(len(mean), *size)
    _native.prepare(image, out, resize=resize, mean=mean, std=std)
    return out


def check(image: Array, size: tuple[int, int], resize: str, channels: int = 3) -> None:
    mean, std = (IMAGENET[0][:channels], IMAGENET[1][:channels])
    expected = reference.prepare(image, size, resize=resize, mean=mean, std=std)
    assert_close(run(image, size, resize, mean, std), expected, "prepare")


def run_restore(map_: Array, shape: tuple[int, int], resize: str) -> Array:
    out = unwritten(*shape)
    _native.restore(map_, out, resize=resize)
    return out


def pillow(plane: Array, size: tuple[int, int], resize: str) -> Array:
    """The same geometry by Pillow, written out again with plain numbers; only the padding is left to numpy."""
    (height, width), (new_height, new_width) = plane.shape, size
    image = Image.fromarray(plane)
    if resize == "crop":
        scale = max(new_height / height, new_width / width)
        left, top = (width - new_width / scale) / 2, (height - new_height / scale) / 2
        # Pillow refuses a box that leaves the picture by a rounding.
        box = (max(left, 0), max(top, 0), min(width - left, width), min(height - top, height))
        return np.asarray(image.resize((new_width, new_height), Image.Resampling.BILINEAR, box=box))
    if resize == "stretch":
        return np.asarray(image.resize((new_width, new_height), Image.Resampling.BILINEAR))
    scale = min(new_height / height, new_width / width)
    inner = max(1, int(height * scale + 0.5 + 1e-9)), max(1, int(width * scale + 0.5 + 1e-9))
    out = np.zeros(size, plane.dtype)
    top, left = (new_height - inner[0]) // 2, (new_width - inner[1]) // 2
    resized = image.resize(inner[::-1], Image.Resampling.BILINEAR)
    out[top : top + inner[0], left : left + inner[1]] = np.asarray(resized)
    return out


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES))
def test_reference_agrees_with_pillow(height: int, width: int, new_height: int, new_width: int, resize: str) -> None:
    plane, size = uniform(height, width), (new_height, new_width)
    found = reference.prepare(plane, size, resize=resize, mean=[0], std=[1])[0]
    # Pillow holds the box in float32: positions are off by eps * side, times a slope of up to 1 a pixel.
    np.testing.assert_allclose(found, pillow(plane, size, resize), atol=1e-5)


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES))
def test_native_agrees_with_pillow_in_8_bits(
    height: int, width: int, new_height: int, new_width: int, resize: str
) -> None:
    """Pillow rounds to 8 bits after each pass, so it may be off by one step."""
    plane, size = picture(height, width), (new_height, new_width)
    found = run(plane, size, resize, [0.0], [1.0])[0]
    np.testing.assert_allclose(found, pillow(plane, size, resize) / 255.0, atol=1.01 / 255)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("new_side", SIDES)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, new_side: int, resize: str) -> None:
    check(picture(side, 20, 3), (new_side, 16), resize)
    check(picture(20, side, 3), (16, new_side), resize)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(19, 31), (19, 31, 1), (19, 31, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_channels(dtype: str, shape: tuple[int, ...], channels: int, resize: str) -> None:
    check(picture(*shape, dtype=dtype), (16, 24), resize, channels)


@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed_batch", "misaligned"])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(dtype: str, resize: str, layout: str) -> None:
    place = LAYOUTS[layout]
    image, out = picture(19, 31, 3, dtype=dtype), place(unwritten(3, 16, 24))
    _native.prepare(place(image), out, resize=resize, mean=IMAGENET[0], std=IMAGENET[1])
    assert_close(out, reference.prepare(image, (16, 24), resize=resize, mean=IMAGENET[0], std=IMAGENET[1]), "prepare")


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES), st.sampled_from(DTYPES), st.sampled_from([1, 3]))
def test_any_shape(
    height: int, width: int, new_height: int, new_width: int, resize: str, dtype: str, channels: int
) -> None:
    check(picture(height, width, channels, dtype=dtype), (new_height, new_width), resize)


def test_full_scale_and_order_of_channels() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0] = (255, 51, 0)
    found = run(image, (1, 2), "stretch", [0.0, 0.2, 0.5], [1.0, 1.0, 0.25])
    np.testing.assert_allclose(found[:, 0, 0], [1.0, 0.0, -2.0], atol=1e-7)
    assert run(np.full((1, 1), 65535, np.uint16), (1, 1), "fit", [0.0], [1.0])[0, 0, 0] == 1.0


def test_luma() -> None:
    image = np.eye(3, dtype=np.float32)[None]
    np.testing.assert_allclose(run(image, (1, 3), "stretch", [0.0], [1.0])[0, 0], [0.299, 0.587, 0.114], rtol=1e-6)


def test_fit_pads_with_zero_before_the_normalisation() -> None:
    found = run(np.full((2, 4), 255, np.uint8), (5, 4), "fit", [0.5], [0.25])
    # 2 rows in 5: one above (the floor of 1.5), two below.
    np.testing.assert_allclose(found[0, :, 0], [-2, 2, 2, -2, -2], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size", "inner"),
    [((5, 10), (10, 5), 3), ((3, 10), (10, 5), 2), ((1, 10), (5, 5), 1), ((1, 100), (8, 8), 1)],
)
def test_fit_rounds_half_up_and_never_to_nothing(shape: tuple[int, int], size: tuple[int, int], inner: int) -> None:
    found = run(np.full(shape, 255, np.uint8), size, "fit", [0.0], [1.0])[0]
    assert (found.max(axis=1) > 0.99).sum() == inner


def test_crop_takes_the_centre() -> None:
    image = np.zeros((4, 12), np.uint8)
    image[:, 4:8] = 255
    np.testing.assert_allclose(run(image, (4, 4), "crop", [0.0], [1.0]), 1.0)


@pytest.mark.parametrize("resize", RESIZES)
def test_nan_reaches_what_looks_at_it(resize: str) -> None:
    image = uniform(16, 16)
    image[4, 5] = np.nan
    found = run(image, (16, 16), resize, [0.0], [1.0])[0]
    assert np.isnan(found[4, 5])
    assert np.isfinite(found[8:]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "squeeze"}, r"prepare.*resize.*squeeze.*stretch"),
        ({"mean": [0.0]}, r"prepare.*mean.*1.*3"),
        ({"std": [1.0, 1.0]}, r"prepare.*std.*2.*3"),
        ({"std": [1.0, 0.0, 1.0]}, r"prepare.*std.*0"),
        ({"mean": [0.0, float("nan"), 0.0]}, r"prepare.*mean.*nan"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    arguments = {"resize": "fit", "mean": [0.0] * 3, "std": [1.0] * 3, **options}
    with pytest.raises(ArgumentError, match=message):
        _native.prepare(picture(5, 7, 3), unwritten(3, 4, 4), **arguments)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(
    ("shape", "size"), [((19, 31), (16, 24)), ((111, 40), (19, 19)), ((7, 9), (64, 48)), ((1, 9), (4, 4))]
)
def test_restore(shape: tuple[int, int], size: tuple[int, int], resize: str) -> None:
    map_ = normal(*size)
    assert_close(run_restore(map_, shape, resize), reference.restore(map_, shape, resize=resize), "restore")


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(RESIZES))
def test_restore_any_shape(height: int, width: int, new_height: int, new_width: int, resize: str) -> None:
    map_ = normal(new_height, new_width)
    expected = reference.restore(map_, (height, width), resize=resize)
    assert_close(run_restore(map_, (height, width), resize), expected, "restore")


@pytest.mark.parametrize("layout", ["contiguous", "strided", "reversed_batch", "misaligned"])
@pytest.mark.parametrize("resize", RESIZES)
def test_restore_layouts(resize: str, layout: str) -> None:
    place = LAYOUTS[layout]
    map_, out = normal(16, 24), place(unwritten(19, 31))
    _native.restore(place(map_), out, resize=resize)
    assert_close(out, reference.restore(map_, (19, 31), resize=resize), "restore")


def test_reference_restore_of_a_stretched_map_is_a_resampling() -> None:
    map_ = normal(7, 9, dtype="float64")
    expected = reference_resample.resample(map_[None], (23, 5))[0]
    np.testing.assert_allclose(reference.restore(map_, (23, 5), resize="stretch"), expected, rtol=1e-12)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("shape", "size"), [((30, 50), (48, 40)), ((50, 30), (40, 48)), ((64, 64), (32, 40))])
def test_a_slope_comes_back_where_it_was(shape: tuple[int, int], size: tuple[int, int], resize: str) -> None:
    """Independent of the reference: a linear picture survives both filters, so any shift of half a pixel is seen."""
    rows, columns = np.meshgrid(*(np.linspace(0.1, 0.9, side) for side in shape), indexing="ij")
    for plane in (rows.astype(np.float32), columns.astype(np.float32)):
        found = run_restore(run(plane, size, resize, [0.0], [1.0])[0], shape, resize)
        inside = found[5:-5, 5:-5]
        seen = inside != 0
        assert seen.mean() > 0.5
        if resize == "crop":
            seen[1:] &= seen[:-1]
            seen[:-1] &= seen[1:]
            seen[:, 1:] &= seen[:, :-1]
            seen[:, :-1] &= seen[:, 1:]
        np.testing.assert_allclose(inside[seen], plane[5:-5, 5:-5][seen], atol=2e-3)


@pytest.mark.parametrize("resize", RESIZES)
def test_a_constant_map_is_restored_everywhere_that_was_looked_at(resize: str) -> None:
    found = run_restore(np.ones((8, 8), np.float32), (8, 24), resize)
    expected = np.ones((8, 24), np.float32)
    if resize == "crop":
        expected[:, :8] = expected[:, 16:] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("side", [1, 3, 7, 9, 11, 13, 15, 21, 23, 49])
@pytest.mark.parametrize("new_side", [3, 7, 19, 23, 49, 64])
def test_a_pixel_cut_in_half_by_the_crop_was_looked_at(side: int, new_side: int) -> None:
    """The box ends on the centres of the outer columns; a rounding of its width may not decide what becomes of them."""
    assert (run_restore(np.ones((new_side, new_side), np.float32), (side, side + 1), "crop") > 0.99).all()


def test_restore_fit_reads_nothing_of_the_padding() -> None:
    map_ = np.full((8, 8), np.nan, np.float32)
    map_[2:6] = 1
    np.testing.assert_allclose(run_restore(map_, (10, 20), "fit"), 1.0, rtol=1e-6)


def test_restore_refuses_an_unknown_resize() -> None:
    with pytest.raises(ArgumentError, match=r"restore.*resize.*squeeze.*stretch"):
        run_restore(normal(4, 4), (5, 7), "squeeze")
