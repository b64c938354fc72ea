"""The native fit of a Gaussian at every position, step by step, against the reference on all images at once."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, Array, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close


def packed(full: Array) -> Array:
    return full[(..., *np.tril_indices(full.shape[-1]))]


def zeros(z: Array) -> tuple[Array, Array]:
    channels, height, width = z.shape[1:]
    return np.zeros((channels, height, width)), np.zeros((height, width, channels * (channels + 1) // 2))


def fit(z: Array, sizes: list[int]) -> tuple[Array, Array]:
    mean, scatter = zeros(z)
    first = 0
    for size in sizes:
        _native.gaussian_positions_fit(z[first : first + size], first, mean, scatter)
        first += size
    assert first == len(z)
    return mean, scatter


def whiten(scatter: Array, count: int, shrinkage: float) -> Array:
    out = unwritten(*scatter.shape, dtype="float64")
    _native.gaussian_positions_whitener(scatter, out, count=count, shrinkage=shrinkage)
    return out


def check(z: Array, sizes: list[int], shrinkage: float) -> None:
    mean, scatter = fit(z, sizes)
    expected = reference.gaussian_positions_fit(z, shrinkage)
    assert_close(mean, expected[0], "gaussian_positions_fit")
    assert_close(scatter / (len(z) - 1), packed(expected[1]), "gaussian_positions_fit")
    assert_close(whiten(scatter, len(z), shrinkage), packed(expected[2]), "gaussian_positions_fit")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("channels", [1, 19, 111])
def test_channels(channels: int, dtype: str) -> None:
    check(normal(30, channels, 2, 3, dtype=dtype), [1, 8, 0, 21], 0.1)


@pytest.mark.parametrize("side", [1, 19, 111])
def test_positions(side: int) -> None:
    check(normal(9, 3, 2, side), [9], 0.01)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_z_in_every_layout(dtype: str, layout: str) -> None:
    z = normal(7, 5, 3, 11, dtype=dtype)
    found, expected = zeros(z), zeros(z)
    _native.gaussian_positions_fit(LAYOUTS[layout](z), 0, *found)
    _native.gaussian_positions_fit(z, 0, *expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 10),
    st.sampled_from(FLOATS),
)
def test_any_shape(sizes: list[int], channels: int, height: int, width: int, dtype: str) -> None:
    sizes = [*sizes, 2]
    check(normal(sum(sizes), channels, height, width, dtype=dtype), sizes, 0.1)


def test_a_large_mean_does_not_swallow_a_small_spread() -> None:
    z = normal(30, 4, 2, 3, dtype="float64")
    _, scatter = fit(z + 1e6, [10, 1, 19])
    np.testing.assert_allclose(scatter, fit(z, [30])[1], atol=1e-6)


def test_an_empty_batch_changes_nothing() -> None:
    z = normal(3, 4, 2, 3)
    found, expected = fit(z, [3, 0]), fit(z, [3])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_singular_position_is_named() -> None:
    z = normal(9, 3, 4, 5, dtype="float64")
    z[:, 1, 2, 3] = z[:, 0, 2, 3]
    scatter = fit(z, [9])[1]
    message = r"9 images with 3 channels is singular at 1 of 20 positions \(first: row 2, column 3\).*shrinkage above 0"
    with pytest.raises(ArgumentError, match=message):
        whiten(scatter, 9, 0.0)
    assert np.isfinite(whiten(scatter, 9, 0.01)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scatter_that_is_not_finite_is_singular(value: float) -> None:
    scatter = fit(normal(9, 3, 2, 2), [9])[1]
    scatter[1, 0, 4] = value
    with pytest.raises(ArgumentError, match=r"singular at 1 of 4 positions \(first: row 1, column 0\)"):
        whiten(scatter, 9, 0.1)


Z, MEAN, SCATTER = normal(2, 3, 4, 5), np.zeros((3, 4, 5)), np.zeros((4, 5, 6))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z": Z[0]}, r"z has 3 dimensions \[3,4,5\], expected \[N,C,H,W\]"),
        ({"z": Z.astype("float16")}, r"z.*float16.*float32"),
        ({"z": np.repeat(Z, 2, axis=3)[..., ::2]}, r"z has strides"),
        ({"count": -1}, r"count is -1"),
        ({"mean": np.zeros((3, 5, 4))}, r"mean has shape \[3,5,4\], expected .*\[3,4,5\]"),
        ({"mean": MEAN.astype("float32")}, r"mean is float32, expected float64"),
        ({"scatter": np.zeros((4, 5, 9))}, r"scatter has shape \[4,5,9\], expected .*\[4,5,6\]"),
        ({"scatter": SCATTER.astype("float32")}, r"scatter is float32, expected float64"),
        ({"scatter": np.broadcast_to(np.zeros(6), (4, 5, 6))}, r"scatter is"),
    ],
)
def test_a_wrong_argument_of_the_fit(changed: dict[str, Any], message: str) -> None:
    arguments = {"z": Z, "count": 0, "mean": MEAN.copy(), "scatter": SCATTER.copy()} | changed
    with pytest.raises(ArgumentError, match=r"^gaussian_positions_fit: ") as caught:
        _native.gaussian_positions_fit(**arguments)
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("entries", "count", "shrinkage", "message"),
    [
        (5, 9, 0.1, r"scatter has 5 entries a position, expected C\(C\+1\)/2"),
        (6, 1, 0.1, r"count is 1, a covariance needs at least 2"),
        (6, 9, 1.5, r"shrinkage is 1\.5, expected a share"),
        (6, 9, np.nan, r"shrinkage is nan, expected a share"),
    ],
)
def test_a_wrong_argument_of_the_whitener(entries: int, count: int, shrinkage: float, message: str) -> None:
    with pytest.raises(ArgumentError, match=r"^gaussian_positions_whitener: ") as caught:
        whiten(np.ones((4, 5, entries)), count, shrinkage)
    assert re.search(message, str(caught.value)), caught.value
