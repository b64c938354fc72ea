"""Distances on the GPU, forward and backward, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, Array, normal, uniform, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import distance as reference
from tolerances import assert_close

METRICS = reference.METRICS
POINTWISE = [metric for metric in METRICS if metric not in reference.WINDOWED]


def pair_of(metric: str, *shape: int, dtype: str = "float32") -> tuple[Array, Array]:
    """Pictures in 0..1 for ssim, features around 0 for the others."""
    make = uniform if metric in reference.WINDOWED else normal
    return make(*shape, dtype=dtype, seed=1), make(*shape, dtype=dtype, seed=2)


def name(metric: str, suffix: str = "") -> str:
    """The row of the table of tolerances."""
    return f"distance_ssim{suffix}" if metric in reference.WINDOWED else f"distance{suffix}"


def forward(gpu: Any, a: Array, b: Array, metric: str, place: Any = np.asarray, **options: Any) -> Array:
    out = gpu.put(place(unwritten(a.shape[0], *a.shape[2:], dtype=a.dtype)))
    gpu.call("distance", gpu.put(a), gpu.put(b), out, metric=metric, **options)
    return gpu.get(out)


def backward(
    gpu: Any, g: Array, a: Array, b: Array, metric: str, place: Any = np.asarray, **options: Any
) -> list[Array]:
    grads = [gpu.put(place(unwritten(*a.shape, dtype=a.dtype))) for _ in "ab"]
    gpu.call("distance_backward", *(gpu.put(x) for x in (g, a, b)), *grads, metric=metric, **options)
    return [gpu.get(x) for x in grads]


def check(gpu: Any, a: Array, b: Array, metric: str, place: Any = np.asarray, **options: Any) -> None:
    """Forward and backward of one pair against the reference, in one layout."""
    found = forward(gpu, place(a), place(b), metric, place, **options)
    assert_close(found, reference.distance(a, b, metric=metric, **options), name(metric))
    g = normal(a.shape[0], *a.shape[2:], dtype=a.dtype, seed=3)
    expected = reference.distance_backward(g, a, b, metric=metric, **options)
    for grad, want, x in zip(
        backward(gpu, place(g), place(a), place(b), metric, place, **options), expected, (a, b), strict=True
    ):
        scale = None
        if metric == "cosine":  # of one channel the gradient cancels to nothing: its scale is what cancels
            scale = np.abs(g[:, None]) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        if metric == "cs" and a.shape[2:] == (1, 1):  # one pixel has no variance
            scale = np.abs(g[:, None]) / reference.C2
        assert_close(grad, want, name(metric, "_backward"), scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 2, 19, 7), (1, 1, 5, 111), (2, 19, 4, 9), (1, 111, 3, 4)])
def test_shapes(gpu, shape, metric, dtype):
    check(gpu, *pair_of(metric, *shape, dtype=dtype), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout, metric):
    """Of 20 channels and 8 x 6 positions, which are read in packs along both where memory allows."""
    check(gpu, *pair_of(metric, 3, 20, 8, 6), metric, LAYOUTS[layout])


@pytest.mark.parametrize("channels", [64, 65, 129, 257, 520])
@pytest.mark.parametrize("layout", ["contiguous", "misaligned", "channels_last", "channels_last_strided"])
def test_cosine_of_many_channels(gpu, layout, channels):
    """More and more of them, until they do not fit into registers."""
    check(gpu, *pair_of("cosine", 1, channels, 2, 4), "cosine", LAYOUTS[layout])


@pytest.mark.parametrize("metric", POINTWISE)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_more_channels_than_registers(gpu, layout, metric):
    check(gpu, *pair_of(metric, 1, 1100, 1, 4), metric, LAYOUTS[layout])


def test_one_side_may_be_channels_last(gpu):
    a, b = pair_of("cosine", 2, 12, 5, 4)
    expected = reference.distance(a, b, metric="cosine")
    assert_close(forward(gpu, LAYOUTS["channels_last"](a), b, "cosine"), expected, "distance")


@pytest.mark.parametrize("window", [1, 3, 21, 301])
def test_windows(gpu, window):
    """Also one far wider than the picture, and than its weights reach."""
    check(gpu, *pair_of("ssim", 1, 2, 12, 35), "ssim", window=window)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 3),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from(POINTWISE),
    st.sampled_from(["contiguous", "channels_last", "strided", "misaligned"]),
)
def test_any_shape(gpu, images, channels, height, width, metric, layout):
    check(gpu, *pair_of(metric, images, channels, height, width), metric, LAYOUTS[layout])


@pytest.mark.parametrize("metric", METRICS)
def test_an_image_does_not_depend_on_its_batch(gpu, metric):
    a, b = pair_of(metric, 3, 70, 6, 5)
    together = forward(gpu, a, b, metric)
    np.testing.assert_array_equal(together[1:2], forward(gpu, a[1:2].copy(), b[1:2].copy(), metric))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_small_cosine_distances_keep_their_digits(gpu, layout):
    a = normal(1, 64, 4, 4)
    b = (3 * a * (1 + 1e-3 * normal(1, 64, 4, 4, seed=5))).astype(np.float32)
    expected = reference.distance(a, b, metric="cosine")
    found = forward(gpu, LAYOUTS[layout](a), LAYOUTS[layout](b), "cosine")
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_zero_vectors(gpu):
    a, b = np.zeros((1, 19, 1, 3), np.float32), normal(1, 19, 1, 3)
    b[..., 2] = 0
    np.testing.assert_allclose(forward(gpu, a, b, "cosine"), [[[0.5, 0.5, 0.0]]], rtol=1e-6)
    tiny, ones = np.zeros((1, 3, 1, 1)), np.ones((1, 3, 1, 1))
    tiny[0, 0] = 2.5e-13  # below the smallest norm: that norm has no gradient
    grads = backward(gpu, np.ones((1, 1, 1)), tiny, ones, "cosine")
    for found, want in zip(grads, reference.distance_backward([[[1.0]]], tiny, ones, metric="cosine"), strict=True):
        assert_close(found, want, "distance_backward")


def test_relative_l1_of_a_zero_reference(gpu):
    a, b = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    b[1] = 0
    expected = reference.distance(a, b, metric="relative_l1")
    np.testing.assert_allclose(forward(gpu, a, b, "relative_l1"), expected, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_nan_spreads_as_far_as_on_the_cpu(gpu, layout, metric):
    a, b = pair_of(metric, 2, 19, 15, 18)
    a[1, 7, 3, 4] = b[0, 0, 9, 12] = np.nan
    place, g = LAYOUTS[layout], normal(2, 15, 18, seed=3)
    expected = unwritten(2, 15, 18)
    _native.distance(place(a), place(b), expected, metric=metric)
    np.testing.assert_array_equal(np.isnan(forward(gpu, place(a), place(b), metric)), np.isnan(expected))
    grads = [unwritten(*a.shape) for _ in "ab"]
    _native.distance_backward(g, a, b, *grads, metric=metric)
    for found, want in zip(backward(gpu, g, place(a), place(b), metric, place), grads, strict=True):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(want))


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_to_do(gpu, metric):
    for shape in [(0, 3, 4, 5), (2, 3, 0, 5)]:
        a, b = pair_of(metric, *shape)
        forward(gpu, a, b, metric)
        backward(gpu, normal(shape[0], *shape[2:]), a, b, metric)


def test_wrong_arguments(gpu):
    a, out = gpu.put(normal(2, 3, 4, 5)), gpu.put(unwritten(2, 4, 5))
    none = gpu.put(np.empty(0, np.uint8))
    with pytest.raises(ArgumentError, match=r'distance: metric is "l3", expected l1'):
        gpu.ops.distance(a, a, out, workspace=none, metric="l3")
    with pytest.raises(ArgumentError, match=r"distance: out has shape \[1,4,5\], expected \[N,H,W\] = \[2,4,5\]"):
        gpu.ops.distance(a, a, out[:1], workspace=none, metric="l1")
    with pytest.raises(ArgumentError, match=r"distance: window is 4, expected an odd number"):
        gpu.ops.distance(a, a, out, workspace=none, metric="ssim", window=4)
    with pytest.raises(ArgumentError, match=r"distance: workspace has 0 bytes, expected at least \d+"):
        gpu.ops.distance(a, a, out, workspace=none, metric="relative_l1")
    with pytest.raises(ArgumentError, match=r"distance: workspace is float32, expected uint8"):
        gpu.ops.distance(a, a, out, workspace=gpu.put(normal(4)), metric="l1")
    with pytest.raises(ArgumentError, match=r"distance_backward: grad_b has shape \[1,3,4,5\]"):
        gpu.ops.distance_backward(out, a, a, a, a[:1], workspace=none, metric="l1")


@pytest.mark.cuda
@pytest.mark.parametrize("metric", METRICS)
def test_torch(metric):
    """The custom op on a GPU: its contract, its gradient, and its place in a graph."""
    import torch

    from normscan.ops.autograd.distance import distance_map

    a, b = (torch.from_numpy(x).cuda() for x in pair_of(metric, 2, 3, 7, 6, dtype="float64"))
    torch.library.opcheck(distance_map, (a, b, metric, 5), test_utils=("test_schema", "test_faketensor"))
    assert torch.autograd.gradcheck(lambda x: distance_map(x, b, metric, 5), (a.clone().requires_grad_(),))
    expected = distance_map(a, b, metric, 5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = distance_map(a, b, metric, 5)
    out.zero_()
    graph.replay()
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
