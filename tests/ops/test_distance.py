"""The native distance maps against the reference, and the reference against torch, scipy and SSIM's own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, uniform, unwritten
from normscan import _native
from reference import distance as reference
from tolerances import assert_close

METRICS = reference.METRICS


def pair_of(metric: str, *shape: int, dtype: str = "float32") -> tuple[Array, Array]:
    """Pictures in 0..1 for ssim, features around 0 for the others."""
    make = uniform if metric in reference.WINDOWED else normal
    return make(*shape, dtype=dtype, seed=1), make(*shape, dtype=dtype, seed=2)


def name(metric: str, suffix: str = "") -> str:
    """The row of the table of tolerances."""
    return f"distance_ssim{suffix}" if metric in reference.WINDOWED else f"distance{suffix}"


def run_forward(a: Array, b: Array, metric: str, **options: int) -> Array:
    out = unwritten(a.shape[0], *a.shape[2:], dtype=a.dtype)
    _native.distance(a, b, out, metric=metric, **options)
    return out


def run_backward(grad_out: Array, a: Array, b: Array, metric: str, **options: int) -> tuple[Array, Array]:
    grad_a, grad_b = unwritten(*a.shape, dtype=a.dtype), unwritten(*b.shape, dtype=b.dtype)
    _native.distance_backward(grad_out, a, b, grad_a, grad_b, metric=metric, **options)
    return grad_a, grad_b


def cancelling(grad_out: Array, x: Array, metric: str) -> Array | None:
    """What a backward cancels to nothing.

    Cosine's projection, which takes everything where there is one channel: gradient over norm. And all of cs where
    there is one pixel, which has no variance: gradient over C2.
    """
    if metric == "cs" and x.shape[2:] == (1, 1):
        return np.abs(grad_out[:, None]) / reference.C2
    if metric != "cosine":
        return None
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return np.abs(grad_out[:, None]) / np.maximum(norm, 1e-12)


def check(a: Array, b: Array, metric: str, **options: int) -> None:
    """Forward and backward of one pair against the reference."""
    assert_close(run_forward(a, b, metric, **options), reference.distance(a, b, metric=metric, **options), name(metric))
    grad_out = normal(a.shape[0], *a.shape[2:], dtype=a.dtype, seed=3)
    expected = reference.distance_backward(grad_out, a, b, metric=metric, **options)
    for found, want, x in zip(run_backward(grad_out, a, b, metric, **options), expected, (a, b), strict=True):
        assert_close(found, want, name(metric, "_backward"), cancelling(grad_out, x, metric))


def in_torch(a: torch.Tensor, b: torch.Tensor, metric: str, window: int) -> torch.Tensor:
    """The same map from torch's own parts, for autograd."""
    difference = a - b
    if metric == "l1":
        return difference.abs().mean(1)
    if metric == "l2":
        return difference.square().mean(1)
    if metric == "cosine":
        unit = torch.nn.functional.normalize
        return 0.5 * (unit(a, dim=1, eps=1e-12) - unit(b, dim=1, eps=1e-12)).square().sum(1)
    if metric == "relative_l1":
        return difference.abs().mean(1) / b.detach().abs().mean((1, 2, 3), keepdim=True)[:, 0]
    taps = torch.exp(-(torch.arange(-(window // 2), window // 2 + 1, dtype=a.dtype) ** 2) / (2 * 1.5**2))
    kernel = torch.outer(taps, taps)[None, None]

    def windowed(x: torch.Tensor) -> torch.Tensor:
        planes = x.reshape(-1, 1, *x.shape[2:])
        cut = torch.nn.functional.conv2d(torch.ones_like(planes), kernel, padding=window // 2)
        return (torch.nn.functional.conv2d(planes, kernel, padding=window // 2) / cut).reshape(x.shape)

    mean_a, mean_b = windowed(a), windowed(b)
    variances = windowed(a * a) - mean_a**2 + windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    if metric == "cs":
        return (1 - (2 * covariance + 0.03**2) / (variances + 0.03**2)).mean(1)
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return (1 - top / ((mean_a**2 + mean_b**2 + 0.01**2) * (variances + 0.03**2))).mean(1)


@pytest.mark.parametrize("window", [3, 11])
@pytest.mark.parametrize("metric", METRICS)
def test_reference_agrees_with_torch(metric: str, window: int) -> None:
    arrays = pair_of(metric, 2, 3, 9, 14, dtype="float64")
    a, b = (torch.from_numpy(x).requires_grad_() for x in arrays)
    out = in_torch(a, b, metric, window)
    grad_out = normal(*out.shape, dtype="float64", seed=3)
    out.backward(torch.from_numpy(grad_out))
    np.testing.assert_allclose(reference.distance(*arrays, metric=metric, window=window), out.detach(), rtol=1e-10)
    found = reference.distance_backward(grad_out, *arrays, metric=metric, window=window)
    np.testing.assert_allclose(found[0], a.grad, rtol=1e-9, atol=1e-11)
    if (
        metric == "relative_l1"
    ):  # torch's detach() hides the reference's own share: by the contract that is all of grad_b
        np.testing.assert_allclose(found[1], -found[0])
    np.testing.assert_allclose(found[1], b.grad, rtol=1e-9, atol=1e-11)


def test_reference_ssim_is_the_textbook_one() -> None:
    """Weighted deviations from each position's own mean, the definition; inside the picture and cut at its corner."""
    a, b = pair_of("ssim", 1, 1, 20, 24, dtype="float64")
    for row, column in [(9, 13), (0, 23)]:
        rows, columns = (np.arange(max(spot - 5, 0), min(spot + 6, side)) for spot, side in ((row, 20), (column, 24)))
        square = (rows[:, None] - row) ** 2 + (columns[None, :] - column) ** 2
        weights = np.exp(-square / (2 * 1.5**2)) / np.exp(-square / (2 * 1.5**2)).sum()
        x, y = a[0, 0][np.ix_(rows, columns)], b[0, 0][np.ix_(rows, columns)]
        mean_x, mean_y = np.sum(weights * x), np.sum(weights * y)
        variances = np.sum(weights * ((x - mean_x) ** 2 + (y - mean_y) ** 2))
        covariance = np.sum(weights * (x - mean_x) * (y - mean_y))
        ssim = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
        ssim /= (mean_x**2 + mean_y**2 + 1e-4) * (variances + 9e-4)
        assert reference.distance(a, b, metric="ssim")[0, row, column] == pytest.approx(1 - ssim, rel=1e-11)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, metric: str, dtype: str) -> None:
    check(*pair_of(metric, 2, 3, side, side, dtype=dtype), metric)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("channels", SIDES)
def test_channels(channels: int, metric: str, dtype: str) -> None:
    check(*pair_of(metric, 2, channels, 5, 23, dtype=dtype), metric)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(dtype: str, metric: str, layout: str) -> None:
    place = LAYOUTS[layout]
    a, b = pair_of(metric, 3, 19, 12, 13, dtype=dtype)
    grad_out = normal(3, 12, 13, dtype=dtype, seed=3)
    out, grads = place(unwritten(3, 12, 13, dtype=dtype)), [place(unwritten(*a.shape, dtype=dtype)) for _ in "ab"]
    _native.distance(place(a), place(b), out, metric=metric)
    _native.distance_backward(place(grad_out), place(a), place(b), *grads, metric=metric)
    assert_close(out, reference.distance(a, b, metric=metric), name(metric))
    expected = reference.distance_backward(grad_out, a, b, metric=metric)
    for found, want in zip(grads, expected, strict=True):
        assert_close(found, want, name(metric, "_backward"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("channels", [1, 8, 19, 111, 256])
@pytest.mark.parametrize("layout", ["channels_last", "channels_last_strided"])
def test_channels_side_by_side(layout: str, channels: int, metric: str, dtype: str) -> None:
    """Read in place from a whole vector of channels on, whatever rest they leave."""
    a, b = pair_of(metric, 2, channels, 13, 21, dtype=dtype)
    found = run_forward(LAYOUTS[layout](a), LAYOUTS[layout](b), metric)
    assert_close(found, reference.distance(a, b, metric=metric), name(metric))


@pytest.mark.parametrize("metric", METRICS)
def test_one_side_may_be_channels_last(metric: str) -> None:
    a, b = pair_of(metric, 2, 5, 13, 12)
    expected = reference.distance(a, b, metric=metric)
    assert_close(run_forward(LAYOUTS["channels_last"](a), b, metric), expected, name(metric))
    assert_close(run_forward(a, LAYOUTS["channels_last"](b), metric), expected, name(metric))


@given(
    st.integers(0, 3),
    st.integers(1, 20),
    st.integers(1, 14),
    st.integers(1, 40),
    st.sampled_from(METRICS),
    st.sampled_from(FLOATS),
    st.sampled_from([1, 3, 7, 11, 21]),
)
def test_any_shape(images: int, channels: int, height: int, width: int, metric: str, dtype: str, window: int) -> None:
    pair = pair_of(metric, images, channels, height, width, dtype=dtype)
    check(*pair, metric, **({"window": max(window, 3)} if metric in reference.WINDOWED else {}))


@pytest.mark.parametrize("metric", METRICS)
def test_equal_pictures_are_at_distance_zero(metric: str) -> None:
    a, _ = pair_of(metric, 2, 5, 13, 12)
    np.testing.assert_allclose(
        run_forward(a, a.copy(), metric), 0, atol=2e-4 if metric in reference.WINDOWED else 1e-12
    )
    grad_a, grad_b = run_backward(np.ones((2, 13, 12), np.float32), a, a.copy(), metric)
    # sign(0) = 0 as in torch; SSIM has its maximum here, up to rounding over C2.
    np.testing.assert_allclose(grad_a, 0, atol=1e-2 if metric in reference.WINDOWED else 1e-6)
    np.testing.assert_allclose(grad_b, 0, atol=1e-2 if metric in reference.WINDOWED else 1e-6)


def test_small_cosine_distances_keep_their_digits() -> None:
    a = normal(1, 64, 8, 8)
    b = (a * (1 + 1e-3 * normal(1, 64, 8, 8, seed=5))).astype(np.float32)
    expected = reference.distance(a, b, metric="cosine")
    assert expected.max() < 2e-6  # 1 - cos would be right to about 1e-7 here, no better than 5 %
    np.testing.assert_allclose(run_forward(a, b, "cosine"), expected, rtol=2e-3)


def test_cosine_of_a_zero_vector() -> None:
    a, b = np.zeros((1, 19, 1, 3), np.float32), normal(1, 19, 1, 3)
    b[..., 2] = 0
    np.testing.assert_allclose(run_forward(a, b, "cosine"), [[[0.5, 0.5, 0.0]]], rtol=1e-6)


def test_cosine_of_a_vector_below_the_smallest_norm() -> None:
    a, b = np.zeros((1, 3, 1, 1)), np.ones((1, 3, 1, 1))
    a[0, 0] = 2.5e-13
    check(a, b, "cosine")


def test_relative_l1_of_a_zero_reference() -> None:
    a, b = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    b[1] = 0
    expected = reference.distance(a, b, metric="relative_l1")
    np.testing.assert_allclose(run_forward(a, b, "relative_l1"), expected, rtol=1e-5)


def test_relative_l1_measures_each_image_against_its_own_reference() -> None:
    a, b = normal(3, 5, 6, 7), normal(3, 5, 6, 7, seed=1) * np.array([1, 100, 0.01], np.float32)[:, None, None, None]
    together = run_forward(a, b, "relative_l1")
    for image in range(3):
        np.testing.assert_array_equal(
            together[image : image + 1], run_forward(a[image : image + 1], b[image : image + 1], "relative_l1")
        )


def test_window_defaults_to_11() -> None:
    pair = pair_of("ssim", 1, 1, 19, 19)
    np.testing.assert_array_equal(run_forward(*pair, "ssim"), run_forward(*pair, "ssim", window=11))
    assert np.any(run_forward(*pair, "ssim") != run_forward(*pair, "ssim", window=7))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", ["a", "b"])
def test_nan_reaches_its_own_position(side: str, metric: str) -> None:
    a, b = pair_of(metric, 2, 19, 23, 25)
    (a if side == "a" else b)[1, 7, 3, 4] = np.nan
    out = run_forward(a, b, metric)
    assert math.isnan(out[1, 3, 4])
    assert np.isfinite(out[0]).all()
    if metric in ("l1", "l2", "cosine"):
        assert np.isnan(out).sum() == 1
    if metric == "relative_l1" and side == "b":
        assert np.isnan(out[1]).all()
    if metric in reference.WINDOWED:
        assert np.isnan(out[1, :9, :10]).all()
        assert np.isfinite(out[1, 9:, 10:]).all()
