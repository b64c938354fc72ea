"""What a Gaussian gives of a squared distance: saturated scores and likelihoods, shared and at every position."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native, ops
from normscan.errors import ArgumentError
from normscan.ops.autograd import translation_table
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("isotropic", "diagonal", "full")
OUTPUTS = ("saturated", "nll")


def whitener_of(form: str, channels: int, dtype: str = "float32") -> Array:
    """Of both signs on the diagonal: a determinant counts by its magnitude."""
    diagonal = (0.5 + np.abs(normal(channels, dtype=dtype, seed=4))) * np.where(np.arange(channels) % 3 == 1, -1, 1)
    if form == "full":
        lower = np.tril(normal(channels, channels, dtype=dtype, seed=3) / channels**0.5, -1)
        return (lower + np.diag(diagonal)).astype(dtype)
    return diagonal[: 1 if form == "isotropic" else None].astype(dtype)


def case(form: str, channels: int, dtype: str, *, maps: bool) -> tuple[Array, Array, Array]:
    z = normal(3, channels, 5, 23, dtype=dtype) if maps else normal(19, channels, dtype=dtype)
    return z, normal(channels, dtype=dtype, seed=1), whitener_of(form, channels, dtype)


def run(z: Array, mean: Array, whitener: Array, **options: Any) -> Array:
    out = unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype)
    _native.gaussian(z, mean, whitener, out, **options)
    return out


def positions(z: Array, mean: Array, whitener: Array, **options: Any) -> Array:
    out = unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype)
    _native.gaussian_positions(z, mean, whitener, out, **options)
    return out


def at_positions(form: str, images: int, channels: int, dtype: str = "float32") -> tuple[Array, Array, Array]:
    full = np.tril(normal(5, 7, channels, channels, dtype=dtype, seed=3) / channels**0.5)
    whitener = full if form == "full" else np.ascontiguousarray(full[(..., *np.tril_indices(channels))])
    return (
        normal(images, channels, 5, 7, dtype=dtype),
        normal(channels, 5, 7, dtype=dtype, seed=1),
        whitener.astype(dtype),
    )


def test_the_reference_likelihood_agrees_with_scipy() -> None:
    z, mean, whitener = case("full", 5, "float64", maps=False)
    expected = -multivariate_normal(mean, np.linalg.inv(whitener.T @ whitener)).logpdf(z)
    np.testing.assert_allclose(reference.gaussian(z, mean, whitener, output="nll"), expected, rtol=1e-10)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", FORMS)
def test_the_reference_gradient_agrees_with_torch(form: str, output: str) -> None:
    arrays = case(form, 5, "float64", maps=True)
    z, mean, whitener = (torch.from_numpy(x.copy()).requires_grad_() for x in arrays)
    full = whitener.tril() if form == "full" else torch.diag(whitener.expand(5))
    squared = torch.einsum("ij,n...j->n...i", full, z.movedim(1, -1) - mean).square().sum(-1)
    likelihood = 0.5 * squared + 2.5 * np.log(2 * np.pi) - full.diagonal().abs().log().sum()
    out = likelihood if output == "nll" else 1 - torch.exp(-squared / 4.5)
    grad_out = normal(*out.shape, dtype="float64", seed=2)
    out.backward(torch.from_numpy(grad_out))
    found = reference.gaussian_backward(grad_out, *arrays, output=output, saturation=4.5)
    for one, tensor in zip(found, (z, mean, whitener), strict=True):
        np.testing.assert_allclose(one, tensor.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", SIDES)
@pytest.mark.parametrize("maps", [False, True])
def test_forward_and_backward(maps: bool, channels: int, form: str, output: str, dtype: str) -> None:
    arguments, options = case(form, channels, dtype, maps=maps), {"output": output, "saturation": 1.5 * channels}
    out = run(*arguments, **options)
    assert_close(out, reference.gaussian(*arguments, **options), "gaussian")
    grad_out = normal(*out.shape, dtype=dtype, seed=2)
    grads = [unwritten(*x.shape, dtype=dtype) for x in arguments]
    _native.gaussian_backward(grad_out, *arguments, *grads, **options)
    expected = reference.gaussian_backward(grad_out, *arguments, **options)
    # Signed sums over all positions: measured by the sums of magnitudes.
    magnitudes = reference.gaussian_backward(np.abs(grad_out), *arguments, **options)
    scales = (
        None,
        np.abs(np.moveaxis(expected[0], 1, -1)).reshape(-1, channels).sum(axis=0).max(),
        np.abs(magnitudes[2]).max() + (np.abs(grad_out).sum() * channels if output == "nll" else 0),
    )
    for found, want, scale in zip(grads, expected, scales, strict=True):
        assert_close(found, want, "gaussian_backward", scale)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", ["full", "packed"])
@pytest.mark.parametrize("images", [0, 1, 8, 11])
def test_at_every_position(images: int, form: str, output: str, dtype: str) -> None:
    for channels in SIDES:
        arguments, options = at_positions(form, images, channels, dtype), {"output": output, "saturation": channels}
        assert_close(
            positions(*arguments, **options), reference.gaussian_positions(*arguments, **options), "gaussian_positions"
        )


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, output: str) -> None:
    place, options = LAYOUTS[layout], {"output": output, "saturation": 19.0}
    z, mean, whitener = case("full", 19, "float32", maps=True)
    out = place(unwritten(3, 5, 23))
    _native.gaussian(place(z), place(mean), place(whitener), out, **options)
    assert_close(out, reference.gaussian(z, mean, whitener, **options), "gaussian")


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_small_distance_keeps_its_digits_when_saturated(dtype: str) -> None:
    """From 1e-12 of the saturation to beyond it, across the border of the series."""
    z = np.geomspace(1e-6, 8, 111, dtype=dtype)[:, None]
    mean, whitener, options = np.zeros(1, dtype), np.ones(1, dtype), {"output": "saturated"}
    found = run(z, mean, whitener, **options)
    assert_close(found, reference.gaussian(z, mean, whitener, **options), "gaussian_saturated")
    assert found.min() > 0
    assert found.max() <= 1
    tiles = np.ascontiguousarray(np.broadcast_to(z[:, :, None, None], (111, 1, 2, 2)))
    at_each = positions(tiles, np.zeros((1, 2, 2), dtype), np.ones((2, 2, 1), dtype), **options)
    np.testing.assert_array_equal(at_each, np.broadcast_to(found[:, None, None], at_each.shape))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("run_one", [run, positions])
def test_nan_is_no_confident_score(run_one: Callable[..., Array], output: str) -> None:
    z, mean, whitener = at_positions("full", 3, 19)
    if run_one is run:
        mean, whitener = mean[:, 0, 0].copy(), whitener[0, 0]
    z[1, 7, 1, 2] = np.nan
    found = run_one(z, mean, whitener, output=output)
    assert np.isnan(found[1, 1, 2])
    assert np.isnan(found).sum() == 1


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_image_alone_has_the_bits_it_has_in_a_batch(output: str) -> None:
    z, mean, whitener = at_positions("packed", 11, 21)
    together = positions(z, mean, whitener, output=output, saturation=9.0)
    for n in range(11):
        np.testing.assert_array_equal(
            positions(z[n : n + 1], mean, whitener, output=output, saturation=9.0)[0], together[n]
        )


def test_a_determinant_of_many_small_entries() -> None:
    """The product of a hundred of them is no number; the sum of their logarithms is."""
    z, mean = normal(2, 100, 1, 1), np.zeros((100, 1, 1), np.float32)
    for factor in (1e-30, 1e30):
        packed = np.zeros((1, 1, 100, 100), np.float32)
        packed[0, 0] = np.eye(100) * factor
        found = positions(z * np.float32(1e-32), mean, packed, output="nll")
        expected = reference.gaussian_positions(z * np.float32(1e-32), mean, packed, output="nll")
        assert_close(found, expected, "gaussian_positions")


CALLS: dict[str, Callable[..., object]] = {
    "gaussian": lambda **options: run(*case("full", 3, "float32", maps=False), **options),
    "gaussian_backward": lambda **options: _native.gaussian_backward(
        *(normal(4), normal(4, 3), normal(3), normal(3), normal(4, 3), normal(3), normal(3)), **options
    ),
    "gaussian_positions": lambda **options: positions(*at_positions("full", 2, 3), **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_outputs_are_named(name: str) -> None:
    for value in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match=rf"{name}: saturation is .*, expected a finite number > 0"):
            CALLS[name](output="saturated", saturation=value)
    with pytest.raises(ArgumentError, match=rf'{name}: output is "mse", expected squared_distance, saturated or nll'):
        CALLS[name](output="mse")


def test_the_default_is_the_squared_distance() -> None:
    arguments = case("full", 19, "float32", maps=True)
    np.testing.assert_array_equal(ops.gaussian(*arguments), ops.gaussian(*arguments, output="squared_distance"))
    assert_close(ops.gaussian(*arguments), reference.gaussian(*arguments), "gaussian")


class Scores(torch.nn.Module):
    """A Gaussian op with its statistics, as a network holds them."""

    def __init__(self, op: Callable[..., torch.Tensor], mean: Array, whitener: Array, output: str) -> None:
        super().__init__()
        self.op, self.output = op, output
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("whitener", torch.from_numpy(whitener))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.op(z, self.mean, self.whitener, output=self.output, saturation=5.5)


@pytest.mark.parametrize("output", ["squared_distance", *OUTPUTS])
@pytest.mark.parametrize("form", [*FORMS, "vectors", "full positions", "packed positions"])
def test_onnx_equals_torch(form: str, output: str) -> None:
    """At opset 18, with another batch than it was exported with."""
    runtime = pytest.importorskip("onnxruntime")
    if "positions" in form:
        z, *statistics = at_positions(form.split(maxsplit=1)[0], 3, 7)
        network = Scores(ops.gaussian_positions, *statistics, output).eval()
    else:
        shape_of = {"vectors": "full"}.get(form, form)
        z, *statistics = case(shape_of, 7, "float32", maps=form != "vectors")
        network = Scores(ops.gaussian, *statistics, output).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (torch.from_numpy(z[:2]),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},),
            opset_version=18,
            custom_translation_table=translation_table(18),
            verbose=False,
        )
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: z})
    expected = network(torch.from_numpy(z)).numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
