"""The native Gaussian distance against the reference, and the reference against torch in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, contiguous, normal, unwritten
from normscan import _native
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("isotropic", "diagonal", "full")


def whitener_of(form: str, channels: int, dtype: str) -> Array:
    """1/sigma between 0.5 and 1.5; the full form holds large numbers above the diagonal, which nobody may read."""
    if form == "full":
        lower = np.tril(normal(channels, channels, dtype=dtype, seed=3) / channels**0.5)
        np.fill_diagonal(lower, 0.5 + np.abs(normal(channels, dtype=dtype, seed=4)))
        return lower + np.triu(np.full_like(lower, 1e30), 1)
    return (0.5 + np.random.default_rng(4).random(1 if form == "isotropic" else channels)).astype(dtype)


def run_forward(z: Array, mean: Array, whitener: Array) -> Array:
    out = unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype)
    _native.gaussian(z, mean, whitener, out)
    return out


def run_backward(grad_out: Array, z: Array, mean: Array, whitener: Array) -> tuple[Array, Array, Array]:
    grads = tuple(unwritten(*x.shape, dtype=z.dtype) for x in (z, mean, whitener))
    _native.gaussian_backward(grad_out, z, mean, whitener, *grads)
    return grads


def check_backward(grads: Sequence[Array], grad_out: Array, z: Array, mean: Array, whitener: Array) -> None:
    """The gradients of mean and whitener are signed sums over all positions: measured by the sums of magnitudes."""
    expected = reference.gaussian_backward(grad_out, z, mean, whitener)
    sum_of_mean = np.abs(np.moveaxis(expected[0], 1, -1)).reshape(-1, mean.size).sum(axis=0).max(initial=0)
    sum_of_whitener = np.abs(reference.gaussian_backward(np.abs(grad_out), z, mean, whitener)[2]).max()
    for found, want, scale in zip(grads, expected, (None, sum_of_mean, sum_of_whitener), strict=True):
        assert_close(found, want, "gaussian_backward", scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 3, 4)])
def test_reference_agrees_with_torch(shape: tuple[int, ...], form: str) -> None:
    arrays = (
        normal(*shape, dtype="float64"),
        normal(shape[1], dtype="float64", seed=1),
        whitener_of(form, shape[1], "float64"),
    )
    z, mean, whitener = (torch.from_numpy(x.copy()).requires_grad_() for x in arrays)
    full = whitener.tril() if form == "full" else torch.diag(whitener.expand(shape[1]))
    out = torch.einsum("ij,n...j->n...i", full, z.movedim(1, -1) - mean).square().sum(-1)
    grad_out = normal(*out.shape, dtype="float64", seed=2)
    out.backward(torch.from_numpy(grad_out))
    np.testing.assert_allclose(reference.gaussian(*arrays), out.detach(), rtol=1e-12)
    for found, tensor in zip(reference.gaussian_backward(grad_out, *arrays), (z, mean, whitener), strict=True):
        np.testing.assert_allclose(found, tensor.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", SIDES)
def test_vectors(channels: int, form: str, dtype: str) -> None:
    z, mean = normal(19, channels, dtype=dtype), normal(channels, dtype=dtype, seed=1)
    whitener, grad_out = whitener_of(form, channels, dtype), normal(19, dtype=dtype, seed=2)
    assert_close(run_forward(z, mean, whitener), reference.gaussian(z, mean, whitener), "gaussian")
    check_backward(run_backward(grad_out, z, mean, whitener), grad_out, z, mean, whitener)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_maps_in_every_layout(dtype: str, form: str, layout: str) -> None:
    place = LAYOUTS[layout]
    z, mean = normal(3, 19, 5, 23, dtype=dtype), normal(19, dtype=dtype, seed=1)
    whitener, grad_out = whitener_of(form, 19, dtype), normal(3, 5, 23, dtype=dtype, seed=2)
    placed = [place(x) for x in (z, mean, whitener)]
    out, grads = (
        place(unwritten(3, 5, 23, dtype=dtype)),
        [place(unwritten(*x.shape, dtype=dtype)) for x in (z, mean, whitener)],
    )
    _native.gaussian(*placed, out)
    _native.gaussian_backward(place(grad_out), *placed, *grads)
    assert_close(out, reference.gaussian(z, mean, whitener), "gaussian")
    check_backward(grads, grad_out, z, mean, whitener)


@given(
    st.integers(0, 4),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 20),
    st.sampled_from(FORMS),
    st.sampled_from(FLOATS),
)
def test_any_shape(images: int, channels: int, height: int, width: int, form: str, dtype: str) -> None:
    z, mean = normal(images, channels, height, width, dtype=dtype), normal(channels, dtype=dtype, seed=1)
    whitener, grad_out = whitener_of(form, channels, dtype), normal(images, height, width, dtype=dtype, seed=2)
    assert_close(run_forward(z, mean, whitener), reference.gaussian(z, mean, whitener), "gaussian")
    check_backward(run_backward(grad_out, z, mean, whitener), grad_out, z, mean, whitener)


def test_a_plane_larger_than_any_block() -> None:
    z, mean, whitener = normal(2, 4, 111, 113), normal(4, seed=1), whitener_of("full", 4, "float32")
    assert_close(run_forward(z, mean, whitener), reference.gaussian(z, mean, whitener), "gaussian")


def test_vectors_and_one_pixel_maps_agree() -> None:
    z, mean, whitener = normal(6, 19), normal(19, seed=1), whitener_of("full", 19, "float32")
    as_map = run_forward(contiguous(z[:, :, None, None]), mean, whitener)
    np.testing.assert_allclose(as_map[:, 0, 0], run_forward(z, mean, whitener), rtol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(3, 19), (3, 19, 2, 5)])
def test_nan_stays_with_its_position(shape: tuple[int, ...], form: str) -> None:
    z, mean, whitener = normal(*shape), normal(19, seed=1), whitener_of(form, 19, "float32")
    z[(1, 7) + (1,) * (len(shape) - 2)] = np.nan
    expected = reference.gaussian(z, mean, whitener)
    assert np.isnan(expected).sum() == 1
    assert_close(run_forward(z, mean, whitener), expected, "gaussian")


def test_the_gradient_above_the_diagonal_is_zero() -> None:
    z, mean, whitener = normal(5, 19), normal(19, seed=1), whitener_of("full", 19, "float32")
    grad_whitener = run_backward(normal(5, seed=2), z, mean, whitener)[2]
    assert np.all(np.triu(grad_whitener, 1) == 0)
    assert np.any(np.tril(grad_whitener) != 0)
