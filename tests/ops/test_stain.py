"""The native comparison of stains against the reference, and the reference against OpenCV and whole numbers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import stain as reference
from tolerances import assert_close

OPTIONS: dict[str, dict[str, Any]] = {
    "residual": {"metric": "residual"},
    "residual, cut": {"metric": "residual", "cut": 156 / 255},
    "residual, of any sign": {"metric": "residual", "cut": -1.0},
    "ratio": {"metric": "red_ratio"},
    "ratio in windows": {"metric": "red_ratio", "window": 15},
    "ratio, saturated": {"metric": "red_ratio", "hue": (300.0, 60.0), "least_saturation": 0.4, "window": 5},
    "ratio, not round the circle": {"metric": "red_ratio", "hue": (90.0, 200.0), "window": 3},
}
WHITE, YELLOW, RED, CYAN = (255, 255, 255), (255, 255, 0), (255, 0, 0), (0, 255, 255)


def run(a: Array, b: Array, **options: Any) -> Array:
    out = unwritten(a.shape[0], *a.shape[2:], dtype=a.dtype)
    _native.stain(a, b, out, **options)
    return out


def pair_of(*shape: int, dtype: str = "float32") -> tuple[Array, Array]:
    return uniform(*shape, dtype=dtype, seed=1), uniform(*shape, dtype=dtype, seed=2)


def picture(colours: Any, dtype: str = "float32") -> Array:
    """Colours of 8 bits [P,3] -> one picture of one row [1,3,1,P] in 0..1."""
    return np.ascontiguousarray((np.asarray(colours, dtype) / np.dtype(dtype).type(255)).T[None, :, None, :])


def sampled_colours() -> Array:
    """[P,3] uint8: more than 200,000 of the 2^24, every grey, and every pure hue."""
    codes = np.arange(0, 2**24 * 83, 83 * 79) % 2**24  # the stride has no divisor in common with 2^24
    greys = np.arange(256) * 0x010101
    ramp = np.arange(256)
    hues = [[np.full(256, 255) << i, ramp << j, np.zeros(256, int)] for i in (0, 8, 16) for j in (0, 8, 16) if i != j]
    pure = np.concatenate([sum(parts) for parts in hues])
    codes = np.concatenate([codes, greys, pure])
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.uint8)


COLOURS = sampled_colours()


def red_in_whole_numbers(colours: Array, hue: tuple[int, int], least: tuple[int, int]) -> Array:
    """Which colours [P,3] are red, without a division: `hue` in whole degrees, the saturation as a fraction."""
    red, green, blue = colours.astype(np.int64).T
    most, least_value = colours.max(1).astype(np.int64), colours.min(1).astype(np.int64)
    spread = most - least_value
    sectors = [60 * (green - blue), 120 * spread + 60 * (blue - red), 240 * spread + 60 * (red - green)]
    turn = (np.choose(colours.argmax(1), sectors) - hue[0] * spread) % np.maximum(360 * spread, 1)
    in_range = turn <= (hue[1] - hue[0]) % 360 * spread
    return (spread > 0) & in_range & (least[1] * spread >= least[0] * most)


def marks(colours: Array, dtype: str = "float32", **options: Any) -> Array:
    """What the native op finds red, one picture a colour: (1 + 1) / (0 + 1) beside a grey picture."""
    b = np.ascontiguousarray(colours.astype(dtype) / np.dtype(dtype).type(255))[:, :, None, None]
    found = run(np.zeros_like(b), b, metric="red_ratio", **options)[:, 0, 0]
    assert set(np.unique(found)) <= {1, 2}
    return found == 2


def test_the_sample_of_colours_is_what_it_says() -> None:
    distinct = np.unique(COLOURS, axis=0)
    assert len(distinct) >= 200_000
    assert (np.ptp(distinct.astype(int), axis=1) == 0).sum() == 256
    for colour in (RED, CYAN, YELLOW, (0, 0, 255), (255, 0, 255), (0, 255, 0)):
        assert (distinct == colour).all(1).any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("hue", "least"), [((350, 16), (0, 1)), ((350, 16), (1, 5)), ((100, 140), (1, 3)), ((340, 360), (0, 1))]
)
def test_colours_of_8_bits_are_red_as_in_whole_numbers(
    hue: tuple[int, int], least: tuple[int, int], dtype: str
) -> None:
    """Those on an end of the range, too, though c / 255 is rounded."""
    found = marks(COLOURS, dtype, hue=hue, least_saturation=least[0] / least[1])
    np.testing.assert_array_equal(found, red_in_whole_numbers(COLOURS, hue, least))
    assert 1000 < found.sum() < len(COLOURS)


@pytest.mark.parametrize("name", OPTIONS)
def test_sampled_colours_against_their_permutation(name: str) -> None:
    side = 450
    colours = COLOURS[np.random.default_rng(0).permutation(len(COLOURS))[: side * side]]
    order = np.random.default_rng(1).permutation(len(colours))
    a, b = (
        np.ascontiguousarray(x.reshape(1, side, side, 3).transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        for x in (colours, colours[order])
    )
    assert_close(run(a, b, **OPTIONS[name]), reference.stain(a, b, **OPTIONS[name]), "stain")


def test_the_hue_is_that_of_opencv_but_for_grey() -> None:
    """OpenCV gives grey the hue 0, which would make every white pixel red; ours has none."""
    hue, saturation = (x[0, 0] for x in reference.hue_and_saturation(picture(COLOURS, "float64")))
    theirs = cv2.cvtColor((COLOURS / 255).astype(np.float32)[None], cv2.COLOR_RGB2HSV)[0]
    grey = np.ptp(COLOURS.astype(int), axis=1) == 0
    assert np.isnan(hue[grey]).all()
    assert (theirs[grey, 0] == 0).all()
    apart = np.abs(hue - theirs[:, 0])[~grey]
    assert np.minimum(apart, 360 - apart).max() < 0.01
    np.testing.assert_allclose(saturation, theirs[:, 1], atol=1e-5)


def test_red_is_opencvs_8_bit_red_but_for_its_rounding_and_grey() -> None:
    """OpenCV rounds to two degrees: its H <= 8 or H >= 175 is 349..17 degrees, where ours is 350..16."""
    half_degrees = cv2.cvtColor(COLOURS[None], cv2.COLOR_RGB2HSV)[0, :, 0]
    theirs = (half_degrees >= 175) | (half_degrees <= 8)
    exact = reference.hue_and_saturation(picture(COLOURS, "float64"))[0][0, 0]
    grey = np.isnan(exact)
    between = ((exact > 348.9) & (exact < 350)) | ((exact > 16) & (exact < 17.1))
    ours = marks(COLOURS)
    np.testing.assert_array_equal(ours[~grey & ~between], theirs[~grey & ~between])
    assert theirs[grey].all()
    assert not ours[grey].any()
    assert 0 < (ours != theirs)[between].sum() < 0.01 * len(COLOURS)


def test_the_hue_wraps_round_the_circle() -> None:
    """Reds on both sides of 0 degrees, and no cyan. A comparison that does not wrap finds neither or all."""
    hues = {355: (255, 0, 21), 5: (255, 21, 0), 0: RED, 180: CYAN, 340: (255, 0, 85), 30: (255, 128, 0)}
    colours = np.array(list(hues.values()), np.uint8)
    np.testing.assert_array_equal(marks(colours), [True, True, True, False, False, False])
    plain = np.array([350 <= hue <= 16 for hue in hues])
    assert not plain.any()
    np.testing.assert_array_equal(marks(colours, hue=(16.0, 350.0)), [False, False, False, True, True, True])
    assert marks(np.array([RED], np.uint8), hue=(340.0, 360.0)).all()
    assert marks(np.array([RED], np.uint8), hue=(0.0, 0.0)).all()


def test_greens_and_blues_that_overflow_8_bits() -> None:
    """G + B above 255: in uint8 white has the residual 128, more than blood has."""
    colours = np.array([WHITE, YELLOW, (255, 200, 100), (200, 180, 180)], np.uint8)
    red, green, blue = colours.T
    wrapped = red - (green + blue) // 2
    assert wrapped[0] == 128
    exact = red.astype(int) - (green.astype(int) + blue) / 2
    np.testing.assert_array_equal(np.abs(wrapped - exact) > 100, [True, False, True, True])
    np.testing.assert_array_equal(exact, [0, 127.5, 105, 20])
    b = picture(colours)
    assert_close(run(np.zeros_like(b), b, metric="residual")[0, 0], (exact / 255) ** 2, "stain")


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_lies_at_the_cut_stays_and_what_lies_below_is_0(dtype: str) -> None:
    """In every way to reach a residual of 156 and of 155.5 of 255: rounding to float32 moves none across."""
    pairs = [(green, blue) for green in range(256) for blue in range(256)]
    for twice, kept in ((312, True), (311, False)):
        colours = [
            ((twice + green + blue) // 2, green, blue)
            for green, blue in pairs
            if (twice + green + blue) % 2 == 0 and (twice + green + blue) // 2 < 256
        ]
        assert len(colours) > 1000
        b = picture(colours, dtype)
        found = run(np.zeros_like(b), b, metric="residual", cut=156 / 255)
        assert ((found > 0.37) if kept else (found == 0)).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, name: str, dtype: str) -> None:
    a, b = pair_of(2, 3, side, side, dtype=dtype)
    assert_close(run(a, b, **OPTIONS[name]), reference.stain(a, b, **OPTIONS[name]), "stain")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(dtype: str, name: str, layout: str) -> None:
    place, (a, b) = LAYOUTS[layout], pair_of(3, 3, 19, 23, dtype=dtype)
    out = place(unwritten(3, 19, 23, dtype=dtype))
    _native.stain(place(a), place(b), out, **OPTIONS[name])
    np.testing.assert_array_equal(out, run(a, b, **OPTIONS[name]))
    assert_close(out, reference.stain(a, b, **OPTIONS[name]), "stain")


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 30), st.sampled_from(FLOATS))
def test_any_shape_and_window(images: int, height: int, width: int, radius: int, dtype: str) -> None:
    a, b = pair_of(images, 3, height, width, dtype=dtype)
    options = {"metric": "red_ratio", "hue": (300.0, 60.0), "window": 2 * radius + 1}
    assert_close(run(a, b, **options), reference.stain(a, b, **options), "stain")


@pytest.mark.parametrize("window", [33, 65, 75, 45001])
def test_windows_higher_than_a_block_of_rows(window: int) -> None:
    a, b = pair_of(1, 3, 111, 19)
    options = {"metric": "red_ratio", "window": window}
    assert_close(run(a, b, **options), reference.stain(a, b, **options), "stain")


def test_the_ratio_by_hand() -> None:
    """Three red pixels in the picture, one in what was made of it: (3 + 1) / (1 + 1) everywhere."""
    a, b = picture([RED, CYAN, WHITE, CYAN]), picture([RED, RED, RED, CYAN])
    np.testing.assert_array_equal(run(a, b, metric="red_ratio"), np.full((1, 1, 4), 2, np.float32))
    np.testing.assert_array_equal(run(a, b, metric="red_ratio", window=1)[0, 0], [1, 2, 2, 1])
    np.testing.assert_array_equal(run(a, b, metric="red_ratio", window=3)[0, 0], np.float32([1.5, 2, 3, 2]))
    np.testing.assert_array_equal(run(b, a, metric="red_ratio"), np.full((1, 1, 4), 0.5, np.float32))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", range(3))
def test_what_is_not_finite_is_seen(channel: int, value: float, side: str) -> None:
    """In the residual of its own pixel, in every window that holds it, and in the ratio of its whole picture."""
    pictures = dict(zip("ab", pair_of(2, 3, 20, 30), strict=True))
    pictures[side][1, channel, 10, 28] = value
    reach = np.zeros((2, 20, 30), bool)
    reach[1, 7:14, 25:30] = True
    np.testing.assert_array_equal(np.isnan(run(**pictures, metric="red_ratio", window=7)), reach)
    np.testing.assert_array_equal(np.isnan(run(**pictures, metric="red_ratio"))[:, 0, 0], [False, True])
    broken = np.argwhere(~np.isfinite(run(**pictures, metric="residual")))
    np.testing.assert_array_equal(broken, [[1, 10, 28]])
    if np.isnan(value):
        assert np.isnan(run(**pictures, metric="residual")[1, 10, 28])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "red"}, r'metric is "red", expected residual or red_ratio'),
        ({"cut": 1.5}, r"cut is 1\.5, expected -1\.\.1"),
        ({"cut": np.nan}, r"cut is nan, expected -1\.\.1"),
        ({"hue": (-10.0, 16.0)}, r"hue has -10, expected two of 0\.\.360 degrees"),
        ({"hue": (350.0, np.nan)}, r"hue has nan, expected two of 0\.\.360 degrees"),
        ({"hue": (350.0, 361.0)}, r"hue has 361, expected two of 0\.\.360 degrees"),
        ({"hue": (350.0,)}, r"hue has 1 values, expected two: from and to"),
        ({"least_saturation": 1.1}, r"least_saturation is 1\.1, expected 0\.\.1"),
        ({"least_saturation": -0.1}, r"least_saturation is -0\.1, expected 0\.\.1"),
        ({"window": 0}, r"window is 0, expected an odd number in 1\.\.46339"),
        ({"window": 14}, r"window is 14, expected an odd number in 1\.\.46339"),
        ({"window": -3}, r"window is -3, expected an odd number"),
        ({"window": 46341}, r"window is 46341, expected an odd number in 1\.\.46339"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"stain: {message}"):
        run(*pair_of(1, 3, 4, 4), **{"metric": "red_ratio", **options})


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_that_are_not_rgb_are_refused(channels: int) -> None:
    with pytest.raises(ArgumentError, match=rf"stain: a has shape \[1,{channels},4,4\], expected \[N,3,H,W\]"):
        run(*pair_of(1, channels, 4, 4), metric="residual")
