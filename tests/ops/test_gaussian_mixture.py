"""The native mixture of Gaussians against the reference, and that against scipy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native, ops
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("isotropic", "diagonal", "full")
Mixture = tuple[Array, Array, Array, Array]


def case(
    form: str, shape: tuple[int, ...], components: int = 3, dtype: str = "float32", spread: float = 1.0
) -> Mixture:
    """Numbers above the diagonals are large: nobody may read them."""
    channels = shape[1]
    diagonals = 0.5 + np.abs(normal(components, channels, seed=4))
    whiteners = diagonals[:, :1] if form == "isotropic" else diagonals
    if form == "full":
        lower = np.tril(normal(components, channels, channels, seed=3) / channels**0.5, -1)
        whiteners = lower + np.triu(np.full_like(lower, 1e30), 1)
        whiteners[:, np.arange(channels), np.arange(channels)] = diagonals
    weights = np.log(np.random.default_rng(5).dirichlet(np.ones(components)))
    means = spread * normal(components, channels, seed=1)
    return normal(*shape, dtype=dtype), means.astype(dtype), whiteners.astype(dtype), weights.astype(dtype)


def run(z: Array, means: Array, whiteners: Array, log_weights: Array) -> Array:
    out = unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype)
    _native.gaussian_mixture(z, means, whiteners, log_weights, out)
    return out


def test_the_reference_agrees_with_scipy() -> None:
    z, means, whiteners, log_weights = case("full", (19, 5), dtype="float64")
    factors = np.tril(whiteners)
    densities = [
        multivariate_normal(mean, np.linalg.inv(factor.T @ factor)).logpdf(z) + weight
        for mean, factor, weight in zip(means, factors, log_weights, strict=True)
    ]
    found = reference.gaussian_mixture(z, means, whiteners, log_weights)
    np.testing.assert_allclose(found, -logsumexp(densities, axis=0), rtol=1e-10)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", SIDES)
@pytest.mark.parametrize("components", [1, 2, 7])
def test_vectors_and_maps(components: int, channels: int, form: str, dtype: str) -> None:
    for shape in ((19, channels), (2, channels, 5, 23), (0, channels), (0, channels, 2, 3)):
        arguments = case(form, shape, components, dtype)
        assert_close(run(*arguments), reference.gaussian_mixture(*arguments), "gaussian_mixture")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, form: str, dtype: str) -> None:
    arguments, place = case(form, (3, 19, 5, 23), 3, dtype), LAYOUTS[layout]
    out = place(unwritten(3, 5, 23, dtype=dtype))
    _native.gaussian_mixture(*(place(x) for x in arguments), out)
    assert_close(out, reference.gaussian_mixture(*arguments), "gaussian_mixture")


@given(st.integers(0, 4), st.integers(1, 40), st.integers(1, 6), st.integers(1, 20), st.integers(1, 9))
def test_any_shape(images: int, channels: int, height: int, width: int, components: int) -> None:
    arguments = case("full", (images, channels, height, width), components)
    assert_close(run(*arguments), reference.gaussian_mixture(*arguments), "gaussian_mixture")


@pytest.mark.parametrize("form", FORMS)
def test_far_from_every_component_the_nearest_decides(form: str) -> None:
    """Exponents of -1e5: without the largest taken out, the sum would be 0 and the score infinite."""
    for spread in (1.0, 300.0):
        arguments = case(form, (19, 7), 5, spread=spread)
        arguments = (arguments[0] * 100, *arguments[1:])
        expected = reference.gaussian_mixture(*arguments)
        assert expected.max() > 5e3
        assert_close(run(*arguments), expected, "gaussian_mixture")


def test_one_component_is_its_gaussian() -> None:
    z, means, whiteners, _ = case("full", (3, 19, 5, 23), 1)
    found = run(z, means, whiteners, np.zeros(1, np.float32))
    assert_close(found, reference.gaussian(z, means[0], whiteners[0], output="nll"), "gaussian_mixture")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_component_without_weight_is_left_out(place: int) -> None:
    z, means, whiteners, log_weights = case("diagonal", (19, 7))
    log_weights[place] = -np.inf
    kept = [k for k in range(3) if k != place]
    expected = reference.gaussian_mixture(z, means[kept], whiteners[kept], log_weights[kept])
    assert_close(run(z, means, whiteners, log_weights), expected, "gaussian_mixture")
    assert np.all(run(z, means, whiteners, np.full(3, -np.inf, np.float32)) == np.inf)


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_stays_with_its_position(dtype: str) -> None:
    arguments = case("full", (3, 19, 2, 5), 3, dtype)
    arguments[0][1, 7, 1, 2] = np.nan
    found = run(*arguments)
    assert np.isnan(found[1, 1, 2])
    assert np.isnan(found).sum() == 1


@pytest.mark.parametrize("component", [0, 1, 2])
def test_a_component_that_is_no_number_gives_no_score(component: int) -> None:
    z, means, whiteners, log_weights = case("diagonal", (19, 7))
    for parameter in (means, whiteners, log_weights):
        kept, parameter[component] = parameter[component].copy(), np.nan
        assert np.isnan(run(z, means, whiteners, log_weights)).all()
        parameter[component] = kept


def test_an_image_alone_has_the_bits_it_has_in_a_batch() -> None:
    z, *mixture = case("full", (7, 21, 5, 23))
    together = run(z, *mixture)
    for n in range(7):
        np.testing.assert_array_equal(run(z[n : n + 1], *mixture)[0], together[n])


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [
        (0, (4,), "z has 1 dimensions [4], expected [N,D] or [N,C,H,W]"),
        (1, (3,), "means has 1 dimensions [3], expected [K,D]"),
        (1, (3, 6), "means has shape [3,6], expected [K,D] of z"),
        (1, (0, 7), "means has no component"),
        (2, (3, 6), "whiteners has shape [3,6], expected [3,1], [3,7] or [3,7,7]"),
        (2, (2, 7), "whiteners has shape [2,7], expected"),
        (2, (3, 7, 6), "whiteners has shape [3,7,6], expected"),
        (2, (3,), "whiteners has 1 dimensions [3], expected [K,1], [K,D] or [K,D,D]"),
        (3, (2,), "log_weights has shape [2], expected"),
        (4, (18,), "out has shape [18], expected"),
    ],
)
def test_wrong_shapes_are_named(index: int, shape: tuple[int, ...], message: str) -> None:
    arguments = [*case("full", (19, 7)), unwritten(19)]
    arguments[index] = np.ones(shape, np.float32)
    with pytest.raises(ArgumentError, match="gaussian_mixture: ") as caught:
        _native.gaussian_mixture(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("index", range(5))
def test_wrong_dtypes_are_named(index: int) -> None:
    arguments = [*case("full", (19, 7)), unwritten(19)]
    arguments[index] = arguments[index].astype("float64")
    with pytest.raises(ArgumentError, match=r"gaussian_mixture: .*float64|gaussian_mixture: .*float32"):
        _native.gaussian_mixture(*arguments)


def test_numpy_torch_and_the_fake_kernel() -> None:
    arrays = case("full", (3, 7, 5, 6))
    tensors = [torch.from_numpy(x) for x in arrays]
    np.testing.assert_array_equal(ops.gaussian_mixture(*arrays), ops.gaussian_mixture(*tensors).numpy())
    torch.library.opcheck(
        torch.ops.normscan.gaussian_mixture.default, tuple(tensors), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize(("index", "name"), list(enumerate(("z", "means", "whiteners", "log_weights"))))
def test_no_backward_is_said_at_the_call(index: int, name: str) -> None:
    tensors = [torch.from_numpy(x).requires_grad_(i == index) for i, x in enumerate(case("diagonal", (5, 3)))]
    with pytest.raises(ArgumentError, match=re.escape(f"gaussian_mixture: {name} requires a gradient")):
        ops.gaussian_mixture(*tensors)
    with torch.no_grad():
        assert ops.gaussian_mixture(*tensors).shape == (5,)
