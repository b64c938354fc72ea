"""A Gaussian at every position on the GPU against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, misaligned, normal, strided, unwritten
from normscan.errors import ArgumentError
from reference import gaussian as reference
from tolerances import assert_close

FORMS = ("full", "packed")
OUTPUTS = ("squared_distance", "saturated", "nll")
Case = tuple[Array, Array, Array]


def case(form: str, images: int, channels: int, height: int, width: int, dtype: str = "float32") -> Case:
    """Lower triangles; the full form holds large numbers above the diagonal, which nobody may read."""
    full = normal(height, width, channels, channels, dtype=dtype, seed=3) / channels**0.5
    if form == "packed":
        whitener = np.ascontiguousarray(full[(..., *np.tril_indices(channels))])
    else:
        whitener = np.tril(full) + np.triu(np.full_like(full, 1e30), 1)
    z, mean = normal(images, channels, height, width, dtype=dtype), normal(channels, height, width, dtype=dtype, seed=1)
    return z, mean, whitener.astype(dtype)


def run(gpu: Any, arguments: Case, out: Array | None = None, **options: Any) -> Array:
    z = arguments[0]
    to = gpu.put(unwritten(z.shape[0], *z.shape[2:], dtype=z.dtype) if out is None else out)
    gpu.call("gaussian_positions", *map(gpu.put, arguments), to, **options)
    return gpu.get(to)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", SIDES)
def test_channels_and_positions(gpu, side, form, dtype):
    for arguments in (case(form, 2, side, 1, 3, dtype), case(form, 2, 3, 1, side, dtype)):
        assert_close(run(gpu, arguments), reference.gaussian_positions(*arguments), "gaussian_positions")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("images", [1, 8, 11])
def test_outputs(gpu, images, form, output):
    arguments, options = case(form, images, 19, 3, 5), {"output": output, "saturation": 19.0}
    expected = reference.gaussian_positions(*arguments, **options)
    assert_close(run(gpu, arguments, **options), expected, "gaussian_positions")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_layouts(gpu, form, layout):
    z, mean, whitener = case(form, 3, 19, 3, 5)
    place = LAYOUTS[layout]
    found = run(gpu, (place(z), place(mean), whitener), place(unwritten(3, 3, 5)))
    assert_close(found, reference.gaussian_positions(z, mean, whitener), "gaussian_positions")


@pytest.mark.parametrize("place", [strided, misaligned])
@pytest.mark.parametrize("form", FORMS)
def test_whiteners_in_every_layout(gpu, form, place):
    z, mean, whitener = case(form, 3, 19, 3, 5)
    np.testing.assert_array_equal(run(gpu, (z, mean, place(whitener))), run(gpu, (z, mean, whitener)))


@given(
    st.integers(0, 10),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 10),
    st.sampled_from(FORMS),
    st.sampled_from(FLOATS),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(gpu, images, channels, height, width, form, dtype):
    arguments = case(form, images, channels, height, width, dtype)
    assert_close(run(gpu, arguments), reference.gaussian_positions(*arguments), "gaussian_positions")


def test_an_image_alone_has_the_bits_it_has_in_a_batch(gpu):
    z, mean, whitener = case("packed", 11, 21, 2, 3)
    together = run(gpu, (z, mean, whitener))
    for n in range(11):
        np.testing.assert_array_equal(run(gpu, (z[n : n + 1], mean, whitener))[0], together[n])


def test_packed_and_full_have_the_same_bits(gpu):
    z, mean, whitener = case("full", 9, 21, 2, 3)
    packed = np.ascontiguousarray(whitener[(..., *np.tril_indices(21))])
    np.testing.assert_array_equal(run(gpu, (z, mean, packed)), run(gpu, (z, mean, whitener)))


def test_so_many_channels_that_a_block_has_fewer_positions(gpu):
    arguments = case("packed", 2, 260, 1, 5)
    assert_close(run(gpu, arguments), reference.gaussian_positions(*arguments), "gaussian_positions")


def test_nan_stays_with_its_position(gpu):
    arguments = case("full", 3, 19, 2, 5)
    arguments[0][1, 7, 1, 2] = np.nan
    expected = reference.gaussian_positions(*arguments)
    assert np.isnan(expected).sum() == 1
    assert_close(run(gpu, arguments), expected, "gaussian_positions")


def test_wrong_arguments(gpu):
    z, mean, whitener = case("full", 2, 3, 4, 5)
    with pytest.raises(ArgumentError, match=r"gaussian_positions: whitener has shape \[5,4,3,3\]"):
        run(gpu, (z, mean, np.ascontiguousarray(whitener.transpose(1, 0, 2, 3))))
    with pytest.raises(ArgumentError, match="gaussian_positions: saturation is -1, expected a finite number > 0"):
        run(gpu, (z, mean, whitener), output="saturated", saturation=-1.0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_more_channels_than_shared_memory_holds(gpu, dtype):
    if not gpu.emulated:
        pytest.skip("how much a GPU holds depends on it")
    channels = 99 * 1024 // (8 * np.dtype(dtype).itemsize)
    z, mean = np.zeros((1, channels, 1, 1), dtype), np.zeros((channels, 1, 1), dtype)
    whitener = np.broadcast_to(np.zeros(1, dtype), (1, 1, channels, channels)).copy()
    with pytest.raises(ArgumentError, match=rf"z has {channels} channels, .* takes at most {channels - 1}"):
        run(gpu, (z, mean, whitener))


@pytest.mark.cuda
def test_torch():
    """The custom op on a GPU: registered well, capturable in a graph."""
    import torch

    from normscan.ops.autograd.gaussian import gaussian_positions

    arguments = [torch.from_numpy(x).cuda() for x in case("packed", 3, 19, 4, 5)]
    torch.library.opcheck(gaussian_positions, (*arguments, "nll", 1.0), test_utils=("test_schema", "test_faketensor"))
    expected = gaussian_positions(*arguments, "nll", 1.0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gaussian_positions(*arguments, "nll", 1.0)
    found.zero_()
    graph.replay()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
