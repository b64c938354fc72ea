"""The fused distance of several levels against the reference: one map and one score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, uniform, unwritten
from normscan import _native, ops
from normscan.errors import ArgumentError
from normscan.ops.autograd.distance import distance_forward
from reference import distance_maps as reference
from reference.distance import METRICS, WINDOWED
from tolerances import assert_close

Levels = list[tuple[Array, Array]]
POOLS = [("mean", 0.0), ("max", 0.0), ("topk", 0.1), ("quantile", 0.9), ("area", 0.5)]
OPTIONS: dict[str, Any] = {"metric": "cosine", "fuse": "product", "sigma": 0.0, "pool": "max"}


def levels_of(metric: str, *shapes: tuple[int, ...], dtype: str = "float32") -> Levels:
    make = uniform if metric in WINDOWED else normal
    return [(make(*s, dtype=dtype, seed=2 * i), make(*s, dtype=dtype, seed=2 * i + 1)) for i, s in enumerate(shapes)]


def run(levels: Levels, size: tuple[int, int], **options: Any) -> tuple[Array, Array]:
    images, dtype = len(levels[0][0]), levels[0][0].dtype
    out, score = unwritten(images, *size, dtype=dtype), unwritten(images, dtype=dtype)
    _native.distance_maps(levels, out, score, **(OPTIONS | {"weights": [1.0] * len(levels)} | options))
    return out, score


def check(levels: Levels, size: tuple[int, int], **options: Any) -> None:
    """Map and score of one call against the reference."""
    full = OPTIONS | {"weights": [1.0] * len(levels)} | options
    found = run(levels, size, **full)
    expected = reference.distance_maps(levels, size=size, pool_method=full.pop("pool"), **full)
    row = "distance_maps_ssim" if full["metric"] in WINDOWED else "distance_maps"
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, row)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("fuse", ["product", "sum"])
@pytest.mark.parametrize("metric", METRICS)
def test_levels_of_different_sizes(metric: str, fuse: str, dtype: str) -> None:
    levels = levels_of(metric, (2, 3, 16, 12), (2, 19, 8, 6), (2, 20, 4, 3), dtype=dtype)
    weights = [1.0] * 3 if fuse == "product" else [0.5, 2.0, 0.0]
    check(levels, (32, 24), metric=metric, fuse=fuse, weights=weights, sigma=1.5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, size: int, dtype: str) -> None:
    """Enlarged, left as it is, and reduced."""
    check(levels_of("cosine", (2, 5, side, side), (2, 3, 7, 1), dtype=dtype), (size, size))


@pytest.mark.parametrize(("pool", "parameter"), POOLS)
def test_pools(pool: str, parameter: float) -> None:
    levels = levels_of("l2", (3, 5, 9, 8), (3, 4, 5, 4))
    check(levels, (19, 17), metric="l2", fuse="sum", sigma=1.0, pool=pool, parameter=parameter)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
def test_layouts(metric: str, layout: str) -> None:
    levels = levels_of(metric, (3, 19, 12, 13), (3, 67, 6, 7))
    placed = [(LAYOUTS[layout](a), LAYOUTS[layout](b)) for a, b in levels]
    out, score = LAYOUTS[layout](unwritten(3, 24, 26)), unwritten(3)
    options = {"metric": metric, "weights": [1.0, 1.0], "fuse": "product", "sigma": 2.0}
    _native.distance_maps(placed, out, score, pool="mean", **options)
    expected = reference.distance_maps(levels, size=(24, 26), pool_method="mean", **options)
    row = "distance_maps_ssim" if metric in WINDOWED else "distance_maps"
    assert_close(out, expected[0], row)
    assert_close(score, expected[1], row)


@given(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(METRICS),
    st.sampled_from(["product", "sum"]),
    st.sampled_from([0.0, 0.7, 3.0]),
)
def test_any_shape(
    images: int, shapes: list[tuple[int, ...]], size: tuple[int, int], metric: str, fuse: str, sigma: float
) -> None:
    levels = levels_of(metric, *((images, *shape) for shape in shapes), dtype="float64")
    check(levels, size, metric=metric, fuse=fuse, sigma=sigma)


def test_an_image_does_not_depend_on_its_batch() -> None:
    levels = levels_of("relative_l1", (5, 20, 33, 31), (5, 40, 16, 15))
    whole = run(levels, (70, 61), metric="relative_l1", sigma=2.0)
    for n in range(5):
        one = run([(a[n : n + 1], b[n : n + 1]) for a, b in levels], (70, 61), metric="relative_l1", sigma=2.0)
        np.testing.assert_array_equal(one[0][0], whole[0][n])
        np.testing.assert_array_equal(one[1][0], whole[1][n])


@pytest.mark.parametrize("fuse", ["product", "sum"])
def test_nan_in_nan_out(fuse: str) -> None:
    """A NaN marks its image's map where it is seen, and the score; other images and far positions are as before."""
    levels = levels_of("l1", (2, 3, 8, 8), (2, 3, 4, 4))
    clean, clean_score = run(levels, (8, 8), metric="l1", fuse=fuse)
    levels[0][1][1, 2, 3, 4] = np.nan
    found, score = run(levels, (8, 8), metric="l1", fuse=fuse)
    assert np.isnan(score[1])
    assert score[0] == clean_score[0]
    expected = clean.copy()
    expected[1, 3, 4] = np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": "l3"}, r'metric is "l3".*relative_l1'),
        ({"fuse": "max"}, r'fuse is "max".*sum or product'),
        ({"pool": "sum"}, r'pool is "sum".*quantile'),
        ({"weights": [1.0]}, r"weights has 1 values, levels has 2"),
        ({"weights": [1.0, 2.0]}, r'weights\[1\] is 2, expected 1 where fuse is "product"'),
        ({"weights": [1.0, np.nan], "fuse": "sum"}, r"weights\[1\] is nan, expected a finite"),
        ({"sigma": -1.0}, r"sigma is -1 pixels, expected 0"),
        ({"sigma": np.nan}, r"sigma is nan"),
        ({"pool": "topk", "parameter": 0.0}, r"parameter is 0, expected a share"),
        ({"pool": "quantile", "parameter": 1.5}, r"parameter is 1.5, expected 0..1"),
        ({"pool": "area", "parameter": np.inf}, r"parameter is inf, expected a finite"),
    ],
)
def test_a_wrong_option(changed: dict[str, Any], message: str) -> None:
    levels = levels_of("cosine", (2, 3, 8, 8), (2, 3, 4, 4))
    out, score = unwritten(2, 8, 8), unwritten(2)
    with pytest.raises(ArgumentError, match=rf"distance_maps: {message}"):
        _native.distance_maps(levels, out, score, **(OPTIONS | {"weights": [1.0, 1.0]} | changed))
    assert np.isnan(out).all()


def test_wrong_levels() -> None:
    a = normal(2, 3, 8, 8)
    with pytest.raises(ArgumentError, match="levels is empty"):
        _native.distance_maps([], unwritten(2, 8, 8), unwritten(2), weights=[], **OPTIONS)
    with pytest.raises(ArgumentError, match=r"levels\[1\] is ndarray, expected a pair"):
        run([(a, a), a], (8, 8))  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match=r"levels\[0\] is tuple, expected a pair"):
        run([(a, a, a)], (8, 8))  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match=r"levels\[1\]\.a has shape \[2,3,0,8\], expected C, H and W >= 1"):
        run([(a, a), (a[:, :, :0], a[:, :, :0])], (8, 8))
    with pytest.raises(ArgumentError, match=r"levels\[1\]\.a has 1 images, out_map has 2"):
        run([(a, a), (a[:1], a[:1])], (8, 8))
    with pytest.raises(ArgumentError, match=r"out_map has shape \[2,0,8\], expected H and W >= 1"):
        run([(a, a)], (0, 8))


def test_the_python_face_of_numpy_and_torch() -> None:
    levels = levels_of("cosine", (2, 20, 8, 8), (2, 30, 4, 4))
    options: dict[str, Any] = {"metric": "cosine", "size": (16, 16), "fuse": "sum", "weights": [0.25, 4.0], "blur": 1.0}
    expected = run(levels, (16, 16), fuse="sum", weights=[0.25, 4.0], sigma=1.0)
    for place in (LAYOUTS["contiguous"], LAYOUTS["strided"], LAYOUTS["channels_last"]):
        placed = [(place(a), place(b)) for a, b in levels]
        in_numpy = ops.distance(placed, **options)
        in_torch = ops.distance([(torch.from_numpy(a), torch.from_numpy(b)) for a, b in placed], **options)
        for found, other, want in zip(in_numpy, in_torch, expected, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-5)
            np.testing.assert_array_equal(found, other.numpy())


def test_the_python_face_refuses() -> None:
    a = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ArgumentError, match="pairs is empty"):
        ops.distance([], metric="l1", size=(4, 4))
    with pytest.raises(ArgumentError, match="all of one kind"):
        ops.distance([(a, a.numpy())], metric="l1", size=(4, 4))
    with pytest.raises(ArgumentError, match=r"pairs\[1\]\.b requires a gradient.*distance_map"):
        ops.distance([(a, a), (a, a.clone().requires_grad_())], metric="l1", size=(4, 4))
    with torch.no_grad():
        ops.distance([(a, a.clone().requires_grad_())], metric="l1", size=(4, 4))


def test_the_custom_op() -> None:
    levels = levels_of("cosine", (2, 5, 8, 8), (2, 3, 4, 4), dtype="float64")
    a, b = ([torch.from_numpy(level[side]) for level in levels] for side in (0, 1))
    arguments = (a, b, "cosine", [16, 12], "product", [1.0, 1.0], 1.0, "max", 0.0)
    torch.library.opcheck(distance_forward, arguments, test_utils=("test_schema", "test_faketensor"))


def test_it_compiles_whole() -> None:
    levels = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in levels_of("l2", (2, 5, 8, 8), (2, 3, 4, 4))]

    def score(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.distance(pairs, metric="l2", size=(16, 16), blur=1.0)

    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(levels), score(levels), strict=True):
        torch.testing.assert_close(found, expected)
