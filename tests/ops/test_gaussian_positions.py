"""The native Gaussian distance with a Gaussian at every position against the reference, and that against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, misaligned, normal, reversed_batch, strided, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("full", "packed")


def whitener_of(form: str, channels: int, height: int, width: int, dtype: str) -> Array:
    """Lower triangles; the full form holds large numbers above the diagonal, which nobody may read."""
    full = normal(height, width, channels, channels, dtype=dtype, seed=3) / channels**0.5
    if form == "packed":
        return np.ascontiguousarray(full[(..., *np.tril_indices(channels))]).astype(dtype)
    return (np.tril(full) + np.triu(np.full_like(full, 1e30), 1)).astype(dtype)


def run(z: Array, mean: Array, whitener: Array) -> Array:
    out = unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype)
    _native.gaussian_positions(z, mean, whitener, out)
    return out


def case(
    images: int, channels: int, height: int, width: int, form: str = "full", dtype: str = "float32"
) -> tuple[Array, Array, Array]:
    z, mean = normal(images, channels, height, width, dtype=dtype), normal(channels, height, width, dtype=dtype, seed=1)
    return z, mean, whitener_of(form, channels, height, width, dtype)


@pytest.mark.parametrize("form", FORMS)
def test_reference_agrees_with_torch(form: str) -> None:
    z, mean, whitener = case(3, 5, 2, 4, form, "float64")
    full = np.tril(whitener) if form == "full" else reference.unpacked(whitener, 5)
    y = torch.einsum("hwij,njhw->nihw", torch.from_numpy(full), torch.from_numpy(z - mean))
    np.testing.assert_allclose(reference.gaussian_positions(z, mean, whitener), y.square().sum(1), rtol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", SIDES)
def test_channels_and_positions(side: int, form: str, dtype: str) -> None:
    for args in (case(2, side, 2, 3, form, dtype), case(2, 3, 1, side, form, dtype)):
        assert_close(run(*args), reference.gaussian_positions(*args), "gaussian_positions")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_z_mean_and_out_in_every_layout(dtype: str, form: str, layout: str) -> None:
    z, mean, whitener = case(11, 19, 5, 7, form, dtype)
    place, out = LAYOUTS[layout], LAYOUTS[layout](unwritten(11, 5, 7, dtype=dtype))
    _native.gaussian_positions(place(z), place(mean), whitener, out)
    assert_close(out, reference.gaussian_positions(z, mean, whitener), "gaussian_positions")


@pytest.mark.parametrize("place", [strided, reversed_batch, misaligned])
@pytest.mark.parametrize("form", FORMS)
def test_whiteners_in_every_layout(form: str, place: object) -> None:
    z, mean, whitener = case(3, 19, 5, 7, form)
    np.testing.assert_array_equal(run(z, mean, place(whitener)), run(z, mean, whitener))  # type: ignore[operator]


@given(
    st.integers(0, 18),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from(FORMS),
    st.sampled_from(FLOATS),
)
def test_any_shape(images: int, channels: int, height: int, width: int, form: str, dtype: str) -> None:
    args = case(images, channels, height, width, form, dtype)
    assert_close(run(*args), reference.gaussian_positions(*args), "gaussian_positions")


@pytest.mark.parametrize("form", FORMS)
def test_an_image_alone_has_the_bits_it_has_in_a_batch(form: str) -> None:
    z, mean, whitener = case(19, 21, 5, 7, form)
    together = run(z, mean, whitener)
    for n in range(19):
        np.testing.assert_array_equal(run(z[n : n + 1], mean, whitener)[0], together[n])


def test_packed_and_full_have_the_same_bits() -> None:
    z, mean, whitener = case(9, 21, 5, 7, "full")
    packed = np.ascontiguousarray(whitener[(..., *np.tril_indices(21))])
    np.testing.assert_array_equal(run(z, mean, packed), run(z, mean, whitener))


def test_equal_gaussians_are_the_shared_one() -> None:
    z, mean, whitener = normal(3, 19, 5, 7), normal(19, seed=1), np.tril(normal(19, 19, seed=2))
    shared = unwritten(3, 5, 7)
    _native.gaussian(z, mean, whitener, shared)
    means, whiteners = np.tile(mean[:, None, None], (1, 5, 7)), np.tile(whitener, (5, 7, 1, 1))
    assert_close(run(z, means, whiteners), shared, "gaussian_positions")


@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_with_its_position(form: str) -> None:
    z, mean, whitener = case(3, 19, 2, 5, form)
    z[1, 7, 1, 2] = np.nan
    expected = reference.gaussian_positions(z, mean, whitener)
    assert np.isnan(expected).sum() == 1
    assert_close(run(z, mean, whitener), expected, "gaussian_positions")


def test_a_whitener_of_another_picture_is_refused() -> None:
    z, mean, whitener = case(2, 3, 4, 5)
    with pytest.raises(ArgumentError, match=r"whitener has shape \[5,4,3,3\], expected .*\[4,5,3,3\]"):
        run(z, mean, np.ascontiguousarray(whitener.transpose(1, 0, 2, 3)))
    with pytest.raises(ArgumentError, match=r"whitener has stride 5 .*expected 1"):  # channels_last helps nobody here
        run(z, mean, np.ascontiguousarray(whitener.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
    with pytest.raises(ArgumentError, match=r"whitener has shape \[4,5,9\], expected packed .*\[4,5,6\]"):
        run(z, mean, whitener.reshape(4, 5, 9))
    with pytest.raises(ArgumentError, match=r"mean has shape \[3,5,4\], expected .*\[3,4,5\]"):
        run(z, np.ascontiguousarray(mean.transpose(0, 2, 1)), whitener)
