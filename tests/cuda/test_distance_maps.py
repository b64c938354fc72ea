"""The fused distance of several levels on the GPU against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, normal, uniform, unwritten
from normscan.errors import ArgumentError
from reference import distance_maps as reference
from reference.distance import METRICS, WINDOWED
from tolerances import assert_close

POOLS = [("mean", 0.0), ("max", 0.0), ("topk", 0.1), ("quantile", 0.9), ("area", 0.5)]
OPTIONS: dict[str, Any] = {"metric": "cosine", "fuse": "product", "sigma": 0.0, "pool": "max"}


def levels_of(metric, *shapes, dtype="float32"):
    make = uniform if metric in WINDOWED else normal
    return [(make(*s, dtype=dtype, seed=2 * i), make(*s, dtype=dtype, seed=2 * i + 1)) for i, s in enumerate(shapes)]


def run(gpu, levels, size, place=np.asarray, **options):
    images, dtype = len(levels[0][0]), levels[0][0].dtype
    out, score = gpu.put(place(unwritten(images, *size, dtype=dtype))), gpu.put(unwritten(images, dtype=dtype))
    pairs = [(gpu.put(place(a)), gpu.put(place(b))) for a, b in levels]
    gpu.call("distance_maps", pairs, out, score, **(OPTIONS | {"weights": [1.0] * len(levels)} | options))
    return gpu.get(out), gpu.get(score)


def check(gpu, levels, size, place=np.asarray, **options):
    """Map and score of one call against the reference."""
    full = OPTIONS | {"weights": [1.0] * len(levels)} | options
    found = run(gpu, levels, size, place, **full)
    expected = reference.distance_maps(levels, size=size, pool_method=full.pop("pool"), **full)
    row = "distance_maps_ssim" if full["metric"] in WINDOWED else "distance_maps"
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, row)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fuse", ["product", "sum"])
@pytest.mark.parametrize("metric", METRICS)
def test_levels_of_different_sizes(gpu, metric, fuse, dtype):
    levels = levels_of(metric, (2, 3, 16, 12), (2, 19, 8, 6), (2, 20, 4, 3), dtype=dtype)
    weights = [1.0] * 3 if fuse == "product" else [0.5, 2.0, 0.0]
    check(gpu, levels, (32, 24), metric=metric, fuse=fuse, weights=weights, sigma=1.5)


@pytest.mark.parametrize("size", [1, 19, 41])
@pytest.mark.parametrize("side", [1, 19])
def test_sides(gpu, side, size):
    check(gpu, levels_of("cosine", (1, 5, side, side), (1, 3, 7, 1)), (size, size))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout):
    levels = levels_of("cosine", (2, 20, 8, 6), (2, 12, 4, 3))
    check(gpu, levels, (17, 13), LAYOUTS[layout], sigma=1.0, pool="mean")


@pytest.mark.parametrize(("pool", "parameter"), POOLS)
def test_every_pooling(gpu, pool, parameter):
    levels = levels_of("l2", (2, 3, 8, 6), (2, 5, 4, 3))
    check(gpu, levels, (16, 12), metric="l2", sigma=0.7, pool=pool, parameter=parameter)


def test_as_many_levels_as_fit(gpu):
    levels = levels_of("l1", *[(1, 2, n, n) for n in range(1, 9)])
    check(gpu, levels, (9, 9), metric="l1", fuse="sum", weights=[0.5 * n for n in range(8)])
    with pytest.raises(ArgumentError, match=r"distance_maps: levels has 9 pairs, expected at most 8 on a GPU"):
        run(gpu, [*levels, levels[0]], (9, 9), metric="l1")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 35), st.sampled_from(METRICS))
def test_any_shape(gpu, images, height, width, size, metric):
    check(gpu, levels_of(metric, (images, 3, height, width), (images, 2, 3, 2)), (size, 7), metric=metric, sigma=0.5)


def test_nan_stays_in_its_image(gpu):
    levels = levels_of("l1", (2, 3, 8, 8), (2, 2, 4, 4))
    levels[1][0][1, 0, 3, 3] = np.nan
    out, score = run(gpu, levels, (16, 16), metric="l1", sigma=1.0, pool="mean")
    np.testing.assert_array_equal(np.isnan(score), [False, True])
    assert np.isfinite(out[0]).all()
    assert np.isfinite(out[1, 0, 0])


def test_wrong_arguments(gpu):
    levels = levels_of("l1", (2, 3, 8, 8))
    with pytest.raises(ArgumentError, match="levels is empty"):
        gpu.call("distance_maps", [], gpu.put(normal(2, 4, 4)), gpu.put(normal(2)), **OPTIONS, weights=[])
    with pytest.raises(ArgumentError, match=r"levels\[0\] is ndarray|levels\[0\] is Tensor"):
        gpu.call(
            "distance_maps", [gpu.put(normal(2))], gpu.put(normal(2, 4, 4)), gpu.put(normal(2)), **OPTIONS, weights=[]
        )
    with pytest.raises(ArgumentError, match="weights has 2 values, levels has 1"):
        run(gpu, levels, (4, 4), weights=[1.0, 1.0])
    with pytest.raises(ArgumentError, match=r"distance_maps: workspace has 0 bytes"):
        gpu.ops.distance_maps(
            [tuple(gpu.put(x) for x in levels[0])],
            gpu.put(unwritten(2, 4, 4)),
            gpu.put(unwritten(2)),
            workspace=gpu.put(np.empty(0, np.uint8)),
            **OPTIONS,
            weights=[1.0],
        )


@pytest.mark.cuda
def test_torch():
    """The custom op on a GPU, and its place in a graph."""
    import torch

    from normscan import ops

    levels = [tuple(torch.from_numpy(x).cuda() for x in pair) for pair in levels_of("l2", (2, 5, 8, 8), (2, 3, 4, 4))]
    expected = ops.distance(levels, metric="l2", size=(16, 16), blur=1.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ops.distance(levels, metric="l2", size=(16, 16), blur=1.0)
    for one in found:
        one.zero_()
    graph.replay()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
