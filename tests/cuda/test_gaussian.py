"""The Gaussian and its gradients on the GPU against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, misaligned, normal, unwritten
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("isotropic", "diagonal", "full")
OUTPUTS = ("squared_distance", "saturated", "nll")
Case = tuple[Array, Array, Array]


def whitener_of(form: str, channels: int, dtype: str) -> Array:
    """The full form holds large numbers above the diagonal, which nobody may read; determinants of both signs."""
    diagonal = (0.5 + np.abs(normal(channels, seed=4))) * np.where(np.arange(channels) % 3 == 1, -1, 1)
    if form == "full":
        lower = np.tril(normal(channels, channels, seed=3) / channels**0.5, -1) + np.diag(diagonal)
        return (lower + np.triu(np.full_like(lower, 1e30), 1)).astype(dtype)
    return diagonal[: 1 if form == "isotropic" else None].astype(dtype)


def case(form: str, shape: tuple[int, ...], dtype: str = "float32") -> Case:
    return normal(*shape, dtype=dtype), normal(shape[1], dtype=dtype, seed=1), whitener_of(form, shape[1], dtype)


def run(gpu: Any, arguments: Case, out: Array | None = None, **options: Any) -> Array:
    z = arguments[0]
    to = gpu.put(unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype) if out is None else out)
    gpu.call("gaussian", *map(gpu.put, arguments), to, **options)
    return gpu.get(to)


def run_backward(gpu: Any, grad_out: Array, arguments: Case, place: Any = np.asarray, **options: Any) -> list[Array]:
    grads = [gpu.put(place(unwritten(*x.shape, dtype=x.dtype))) for x in arguments]
    gpu.call("gaussian_backward", gpu.put(grad_out), *map(gpu.put, arguments), *grads, **options)
    return [gpu.get(grad) for grad in grads]


def check_backward(found: list[Array], grad_out: Array, arguments: Case, **options: Any) -> None:
    """The gradients of mean and whitener are signed sums over all positions: measured by the sums of magnitudes."""
    expected = reference.gaussian_backward(grad_out, *arguments, **options)
    magnitudes = reference.gaussian_backward(np.abs(grad_out), *arguments, **options)
    channels = arguments[1].size
    of_mean = np.abs(np.moveaxis(expected[0], 1, -1)).reshape(-1, channels).sum(axis=0).max(initial=0)
    of_whitener = np.abs(magnitudes[2]).max() + (np.abs(grad_out).sum() * channels if len(options) > 1 else 0)
    for one, want, scale in zip(found, expected, (None, of_mean, of_whitener), strict=True):
        assert_close(one, want, "gaussian_backward", scale)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", SIDES)
def test_vectors(gpu, channels, form, dtype):
    arguments, grad_out = case(form, (19, channels), dtype), normal(19, dtype=dtype, seed=2)
    assert_close(run(gpu, arguments), reference.gaussian(*arguments), "gaussian")
    check_backward(run_backward(gpu, grad_out, arguments), grad_out, arguments)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(21, 20), (2, 20, 3, 7), (1, 3, 1, 1)])
def test_outputs(gpu, shape, form, output):
    arguments, options = case(form, shape), {"output": output, "saturation": 1.5 * shape[1]}
    out = run(gpu, arguments, **options)
    assert_close(out, reference.gaussian(*arguments, **options), "gaussian")
    grad_out = normal(*out.shape, seed=2)
    check_backward(run_backward(gpu, grad_out, arguments, **options), grad_out, arguments, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_layouts(gpu, form, layout):
    place, arguments = LAYOUTS[layout], case(form, (2, 20, 3, 8))
    placed, grad_out = tuple(place(x) for x in arguments), normal(2, 3, 8, seed=2)
    assert_close(run(gpu, placed, place(unwritten(2, 3, 8))), reference.gaussian(*arguments), "gaussian")
    check_backward(run_backward(gpu, place(grad_out), placed, place), grad_out, arguments)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_in_another_layout_than_z(gpu, layout):
    for form in FORMS:
        arguments, grad_out = case(form, (2, 20, 3, 7)), normal(2, 3, 7, seed=2)
        other = LAYOUTS["channels_last" if layout == "contiguous" else "contiguous"]
        placed = tuple(LAYOUTS[layout](x) for x in arguments)
        check_backward(run_backward(gpu, grad_out, placed, other), grad_out, arguments)


@given(
    st.integers(0, 4),
    st.integers(1, 70),
    st.integers(1, 5),
    st.integers(1, 15),
    st.sampled_from(FORMS),
    st.sampled_from(FLOATS),
    st.sampled_from(OUTPUTS),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(gpu, images, channels, height, width, form, dtype, output):
    arguments, options = case(form, (images, channels, height, width), dtype), {"output": output, "saturation": 9.0}
    assert_close(run(gpu, arguments, **options), reference.gaussian(*arguments, **options), "gaussian")
    grad_out = normal(images, height, width, dtype=dtype, seed=2)
    check_backward(run_backward(gpu, grad_out, arguments, **options), grad_out, arguments, **options)


@pytest.mark.parametrize("form", FORMS)
def test_several_tiles_of_positions_and_channels(gpu, form):
    """More than 128 positions in a plane, more than 64 channels."""
    arguments, grad_out = case(form, (2, 70, 12, 11)), normal(2, 12, 11, seed=2)
    assert_close(run(gpu, arguments), reference.gaussian(*arguments), "gaussian")
    check_backward(run_backward(gpu, grad_out, arguments), grad_out, arguments)


@pytest.mark.parametrize("shape", [(20, 70), (1, 40, 3, 7)])
def test_tf32_rounds_the_factors_and_nothing_else(gpu, shape):
    """Factors of 11 significant bits, float32 sums: numbers that need no rounding are exact."""
    exact = tuple((np.round(4 * np.clip(x, -8, 8)) / 4).astype(np.float32) for x in case("full", shape))
    np.testing.assert_array_equal(run(gpu, exact, allow_tf32=True), reference.gaussian(*exact))
    arguments = case("full", shape)
    expected, found = reference.gaussian(*arguments), run(gpu, arguments, allow_tf32=True)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert np.abs(found / expected - 1).max() > 1e-5
    grad_out = normal(*expected.shape, seed=2)
    wanted = reference.gaussian_backward(grad_out, *arguments)
    for one, want in zip(run_backward(gpu, grad_out, arguments, allow_tf32=True), wanted, strict=True):
        np.testing.assert_allclose(one, want, rtol=0, atol=4e-3 * np.abs(want).max())


@pytest.mark.parametrize("form", FORMS)
def test_an_image_alone_has_the_bits_it_has_in_a_batch(gpu, form):
    z, mean, whitener = case(form, (3, 70, 2, 7))
    together = run(gpu, (z, mean, whitener))
    for n in range(3):
        np.testing.assert_array_equal(run(gpu, (z[n : n + 1], mean, whitener))[0], together[n])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(3, 19), (3, 19, 2, 5)])
def test_nan_stays_with_its_position(gpu, shape, form):
    arguments = case(form, shape)
    arguments[0][(1, 7) + (1,) * (len(shape) - 2)] = np.nan
    expected = reference.gaussian(*arguments)
    assert np.isnan(expected).sum() == 1
    for output in OUTPUTS:
        found = run(gpu, arguments, output=output)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_the_gradient_above_the_diagonal_is_zero(gpu):
    grad = run_backward(gpu, normal(5, seed=2), case("full", (5, 70)))[2]
    assert np.all(np.triu(grad, 1) == 0)


def test_gradients_are_the_same_every_time(gpu):
    arguments, grad_out = case("full", (70, 70)), normal(70, seed=2)
    first = run_backward(gpu, grad_out, arguments)
    for one, again in zip(first, run_backward(gpu, grad_out, arguments), strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("shape", [(0, 19), (0, 19, 4, 4), (2, 19, 0, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_do(gpu, form, shape):
    arguments = case(form, shape)
    run(gpu, arguments)
    grads = run_backward(gpu, normal(shape[0], *shape[2:]), arguments, output="nll")
    assert not grads[1].any()
    assert not grads[2].any()


def test_wrong_arguments(gpu):
    z, mean, whitener = case("full", (4, 70))
    with pytest.raises(ArgumentError, match="gaussian: mean has 69 channels, z has 70"):
        run(gpu, (z, mean[:69], whitener))
    with pytest.raises(ArgumentError, match='gaussian: output is "welsch"'):
        run(gpu, (z, mean, whitener), output="welsch")
    with pytest.raises(ArgumentError, match="saturation is 0, expected a finite number > 0"):
        run(gpu, (z, mean, whitener), output="saturated", saturation=0.0)
    put, out, bytes_ = [gpu.put(x) for x in (z, mean, whitener)], gpu.put(unwritten(4)), np.zeros(2048, np.uint8)
    with pytest.raises(ArgumentError, match=r"gaussian: workspace has 99 bytes, expected at least \d+"):
        gpu.ops.gaussian(*put, out, workspace=gpu.put(bytes_[:99]))
    with pytest.raises(ArgumentError, match=r"gaussian: workspace starts at .*, expected a multiple of 16 bytes"):
        gpu.ops.gaussian(*put, out, workspace=gpu.put(misaligned(bytes_.view(np.float32)).view(np.uint8)))
    with pytest.raises(ArgumentError, match="gaussian: workspace is float32, expected uint8"):
        gpu.ops.gaussian(*put, out, workspace=gpu.put(np.zeros(2048, np.float32)))
    with pytest.raises(ArgumentError, match="gaussian_backward: grad_z has shape"):
        gpu.ops.gaussian_backward(out, *put, put[1], put[1], put[2], workspace=gpu.put(bytes_))


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
def test_torch(form):
    """The custom op on a GPU: registered well, differentiable, capturable in a graph."""
    import torch

    from normscan.ops.autograd.gaussian import gaussian

    def on_gpu(dtype: str) -> list[Any]:
        return [
            torch.from_numpy(np.tril(x) if x.ndim == 2 and x.shape[0] == 5 else x).cuda()
            for x in case(form, (7, 5), dtype)
        ]

    for output in OUTPUTS:
        arguments = [x.requires_grad_() for x in on_gpu("float64")]
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(gaussian, (*arguments, output, 4.0), test_utils=tests)
        assert torch.autograd.gradcheck(lambda *x, what=output: gaussian(*x, what, 4.0), arguments)
    z, mean, whitener = on_gpu("float32")
    expected = gaussian(z, mean, whitener, "nll", 1.0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gaussian(z, mean, whitener, "nll", 1.0)
    found.zero_()
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
