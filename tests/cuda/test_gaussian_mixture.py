"""Mixtures of Gaussians on the GPU against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("isotropic", "diagonal", "full")
Mixture = tuple[Array, Array, Array, Array]


def case(form: str, shape: tuple[int, ...], components: int = 3, dtype: str = "float32") -> Mixture:
    """Numbers above the diagonals are large: nobody may read them."""
    channels = shape[1]
    diagonals = 0.5 + np.abs(normal(components, channels, seed=4))
    whiteners = diagonals[:, :1] if form == "isotropic" else diagonals
    if form == "full":
        lower = np.tril(normal(components, channels, channels, seed=3) / channels**0.5, -1)
        whiteners = lower + np.triu(np.full_like(lower, 1e30), 1)
        whiteners[:, np.arange(channels), np.arange(channels)] = diagonals
    weights = np.log(np.random.default_rng(5).dirichlet(np.ones(components)))
    means = normal(components, channels, seed=1)
    return normal(*shape, dtype=dtype), means.astype(dtype), whiteners.astype(dtype), weights.astype(dtype)


def run(gpu: Any, arguments: Mixture, out: Array | None = None, **options: Any) -> Array:
    z = arguments[0]
    to = gpu.put(unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype) if out is None else out)
    gpu.call("gaussian_mixture", *map(gpu.put, arguments), to, **options)
    return gpu.get(to)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", SIDES)
def test_vectors(gpu, channels, form, dtype):
    arguments = case(form, (19, channels), dtype=dtype)
    assert_close(run(gpu, arguments), reference.gaussian_mixture(*arguments), "gaussian_mixture")


@pytest.mark.parametrize("components", [1, 2, 5])
@pytest.mark.parametrize("form", FORMS)
def test_maps(gpu, form, components):
    arguments = case(form, (2, 19, 5, 7), components)
    assert_close(run(gpu, arguments), reference.gaussian_mixture(*arguments), "gaussian_mixture")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_layouts(gpu, form, layout):
    place, arguments = LAYOUTS[layout], case(form, (2, 20, 3, 8))
    found = run(gpu, tuple(place(x) for x in arguments), place(unwritten(2, 3, 8)))
    assert_close(found, reference.gaussian_mixture(*arguments), "gaussian_mixture")


@pytest.mark.parametrize("form", FORMS)
def test_a_component_of_no_weight_is_left_out(gpu, form):
    z, means, whiteners, log_weights = case(form, (5, 19))
    log_weights[:2] = -np.inf, 0.0
    with np.errstate(divide="ignore"):
        expected = reference.gaussian_mixture(z, means, whiteners, log_weights)
    assert np.isfinite(expected).all()
    assert_close(run(gpu, (z, means, whiteners, log_weights)), expected, "gaussian_mixture")


@pytest.mark.parametrize("form", FORMS)
def test_nan_and_far_positions(gpu, form):
    arguments = case(form, (4, 19))
    arguments[0][1, 7], arguments[0][2] = np.nan, 1e4
    with np.errstate(invalid="ignore"):
        expected = reference.gaussian_mixture(*arguments)
    assert np.isnan(expected).sum() == 1
    assert_close(run(gpu, arguments)[[0, 1, 3]], expected[[0, 1, 3]], "gaussian_mixture")
    np.testing.assert_allclose(run(gpu, arguments)[2], expected[2], rtol=2e-5)


def test_tf32(gpu):
    arguments = case("full", (20, 40), components=2)
    np.testing.assert_allclose(run(gpu, arguments, allow_tf32=True), reference.gaussian_mixture(*arguments), rtol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_empty_batch(gpu, form):
    run(gpu, case(form, (0, 19)))


def test_wrong_arguments(gpu):
    z, means, whiteners, log_weights = case("full", (4, 5))
    with pytest.raises(ArgumentError, match="gaussian_mixture: log_weights has shape"):
        run(gpu, (z, means, whiteners, log_weights[:2]))
    put = [gpu.put(x) for x in (z, means, whiteners, log_weights, unwritten(4))]
    with pytest.raises(ArgumentError, match="gaussian_mixture: workspace has 1 bytes, expected"):
        gpu.ops.gaussian_mixture(*put, workspace=gpu.put(np.zeros(1, np.uint8)))


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
def test_torch(form):
    """The custom op on a GPU: registered well, capturable in a graph."""
    import torch

    from normscan.ops.autograd.gaussian import gaussian_mixture

    arguments = [torch.from_numpy(x).cuda() for x in case(form, (7, 19))]
    torch.library.opcheck(gaussian_mixture, tuple(arguments), test_utils=("test_schema", "test_faketensor"))
    expected = gaussian_mixture(*arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gaussian_mixture(*arguments)
    found.zero_()
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
