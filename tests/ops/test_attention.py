"""The native attention against the reference, and the reference against torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native, ops
from normscan.errors import ArgumentError
from reference import attention as reference
from tolerances import assert_close


def inputs(
    images: int, heads: int, queries: int, keys: int, key_size: int, value_size: int, dtype: str = "float32"
) -> tuple[Array, Array, Array]:
    return (
        normal(images, heads, queries, key_size, dtype=dtype, seed=1),
        normal(images, heads, keys, key_size, dtype=dtype, seed=2),
        normal(images, heads, keys, value_size, dtype=dtype, seed=3),
    )


def run_forward(q: Array, k: Array, v: Array, scale: float) -> tuple[Array, Array]:
    out, lse = unwritten(*q.shape[:3], v.shape[3], dtype=q.dtype), unwritten(*q.shape[:3], dtype=q.dtype)
    _native.attention(q, k, v, out, lse, scale=scale)
    return out, lse


def run_backward(grad_out: Array, q: Array, k: Array, v: Array, scale: float) -> tuple[Array, ...]:
    out, lse = run_forward(q, k, v, scale)
    grads = tuple(unwritten(*x.shape, dtype=x.dtype) for x in (q, k, v))
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, scale=scale)
    return grads


def run_biased(
    q: Array, k: Array, v: Array, bias: Array, grid: tuple[int, int], scale: float, grad_out: Array
) -> tuple[Array, ...]:
    """out, lse, and the gradients of q, k, v and bias."""
    out, lse = unwritten(*q.shape[:3], v.shape[3], dtype=q.dtype), unwritten(*q.shape[:3], dtype=q.dtype)
    _native.attention(q, k, v, out, lse, bias, scale=scale, grid=grid)
    *grads, grad_bias = (unwritten(*x.shape, dtype=x.dtype) for x in (q, k, v, bias))
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, bias, grad_bias, scale=scale, grid=grid)
    return out, lse, *grads, grad_bias


def table(heads: int, grid: tuple[int, int], dtype: str = "float32") -> Array:
    return normal(heads, 2 * grid[0] - 1, 2 * grid[1] - 1, dtype=dtype, seed=5)


def check_biased(q: Array, k: Array, v: Array, bias: Array, grid: tuple[int, int], scale: float) -> None:
    """Forward and backward with a bias against the reference."""
    grad_out = normal(*q.shape[:3], v.shape[3], dtype=q.dtype, seed=4)
    out, lse, *grads = run_biased(q, k, v, bias, grid, scale, grad_out)
    for found, want in zip((out, lse), reference.attention(q, k, v, scale=scale, bias=bias, grid=grid), strict=True):
        assert_close(found, want, "attention")
    score = np.abs(grad_out).sum(-1).max(initial=0) * np.abs(v).max(initial=0)  # what cancels, as in `check`
    cancelling = [scale * score * np.abs(x).max(initial=0) for x in (k, q)]
    expected = reference.attention_backward(grad_out, q, k, v, scale=scale, bias=bias, grid=grid)
    for found, want, size in zip(grads, expected, (*cancelling, None, score), strict=True):
        assert_close(found, want, "attention_backward", size)


def check(q: Array, k: Array, v: Array, scale: float) -> None:
    """Forward and backward against the reference."""
    for found, want in zip(run_forward(q, k, v, scale), reference.attention(q, k, v, scale=scale), strict=True):
        assert_close(found, want, "attention")
    grad_out = normal(*q.shape[:3], v.shape[3], dtype=q.dtype, seed=4)
    expected = reference.attention_backward(grad_out, q, k, v, scale=scale)
    # With few keys the gradient of the scores cancels, with one key to nothing: its parts are of the size of grad_out.
    cancelling = [
        scale * np.abs(grad_out).sum(-1).max(initial=0) * np.abs(v).max(initial=0) * np.abs(x).max(initial=0)
        for x in (k, q)
    ]
    for found, want, size in zip(run_backward(grad_out, q, k, v, scale), expected, (*cancelling, None), strict=True):
        assert_close(found, want, "attention_backward", size)


def test_reference_agrees_with_torch() -> None:
    arrays = inputs(2, 3, 7, 11, 5, 4, "float64")
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in arrays)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.3)
    grad_out = normal(*out.shape, dtype="float64", seed=4)
    out.backward(torch.from_numpy(grad_out))
    found, lse = reference.attention(*arrays, scale=0.3)
    np.testing.assert_allclose(found, out.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(lse, torch.logsumexp(0.3 * q @ k.mT, -1).detach(), rtol=1e-12)
    for grad, tensor in zip(reference.attention_backward(grad_out, *arrays, scale=0.3), (q, k, v), strict=True):
        np.testing.assert_allclose(grad, tensor.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("keys", SIDES)
@pytest.mark.parametrize("queries", SIDES)
def test_lengths(queries: int, keys: int, dtype: str) -> None:
    check(*inputs(1, 2, queries, keys, 16, 16, dtype), 0.25)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("key_size", "value_size"), [(1, 1), (19, 7), (7, 19), (64, 128), (111, 1), (1, 111)])
def test_head_sizes(key_size: int, value_size: int, dtype: str) -> None:
    check(*inputs(2, 2, 19, 23, key_size, value_size, dtype), key_size**-0.5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_more_positions_than_any_tile(dtype: str) -> None:
    check(*inputs(1, 1, 300, 517, 8, 8, dtype), 8**-0.5)


@pytest.mark.parametrize("keys", [1100, 4700])
def test_more_keys_than_a_part_and_than_a_chunk(keys: int) -> None:
    """The backward pass cuts the keys into parts, and a part into chunks."""
    check(*inputs(1, 2, 70, keys, 3, 5), 3**-0.5)


def test_an_image_does_not_depend_on_its_batch() -> None:
    q, k, v = inputs(3, 2, 130, 600, 8, 5)
    grad_out = normal(3, 2, 130, 5, seed=4)
    together = (*run_forward(q, k, v, 0.3), *run_backward(grad_out, q, k, v, 0.3))
    alone = (*run_forward(q[1:2], k[1:2], v[1:2], 0.3), *run_backward(grad_out[1:2], q[1:2], k[1:2], v[1:2], 0.3))
    for one, all_ in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, all_[1:2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(dtype: str, layout: str) -> None:
    place = LAYOUTS[layout]
    q, k, v = inputs(2, 3, 19, 23, 13, 9, dtype)
    grad_out = normal(2, 3, 19, 9, dtype=dtype, seed=4)
    out, lse = place(unwritten(2, 3, 19, 9, dtype=dtype)), place(unwritten(2, 3, 19, dtype=dtype))
    grads = [place(unwritten(*x.shape, dtype=dtype)) for x in (q, k, v)]
    _native.attention(place(q), place(k), place(v), out, lse, scale=0.3)
    _native.attention_backward(place(grad_out), place(q), place(k), place(v), out, lse, *grads, scale=0.3)
    for found, want in zip((out, lse), reference.attention(q, k, v, scale=0.3), strict=True):
        assert_close(found, want, "attention")
    for found, want in zip(grads, reference.attention_backward(grad_out, q, k, v, scale=0.3), strict=True):
        assert_close(found, want, "attention_backward")


def test_heads_side_by_side_in_memory() -> None:
    """[N,L,H,dk] as a linear layer writes it, seen as [N,H,L,dk]: no copy is needed."""
    q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in inputs(2, 4, 19, 19, 8, 8))
    check(q, k, v, 0.35)


@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from(FLOATS),
)
def test_any_shape(
    images: int, heads: int, queries: int, keys: int, key_size: int, value_size: int, dtype: str
) -> None:
    check(*inputs(images, heads, queries, keys, key_size, value_size, dtype), key_size**-0.5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_scores_that_overflow_a_plain_exp(offset: float, dtype: str) -> None:
    """All scores of a row far from 0, the largest in the last tile: the running maximum must move and stay finite."""
    q, k, v = inputs(1, 1, 5, 150, 4, 3, dtype)
    q[..., 0], k[..., 0] = 1, offset + np.linspace(0, 4, 150, dtype=dtype)
    out, lse = run_forward(q, k, v, 1.0)
    expected, expected_lse = reference.attention(q, k, v, scale=1.0)
    # eps * 300 is what float32 knows of such a score, and exp makes it a relative error.
    bound = 1e-4 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(out, expected, rtol=bound, atol=bound)
    np.testing.assert_allclose(lse, expected_lse, rtol=bound)


def test_scale_zero_is_the_mean_of_the_values() -> None:
    q, k, v = inputs(1, 2, 5, 19, 8, 3)
    out, lse = run_forward(q, k, v, 0.0)
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(axis=2, keepdims=True), out.shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lse, np.log(19), rtol=1e-6)


@pytest.mark.parametrize("broken", ["q", "k", "v"])
def test_nan_reaches_all_that_depends_on_it(broken: str) -> None:
    q, k, v = inputs(2, 2, 19, 23, 8, 8)
    {"q": q, "k": k, "v": v}[broken][1, 0, 5, 2] = np.nan
    out, lse = run_forward(q, k, v, 0.35)
    expected = np.zeros(out.shape, bool)
    expected[(1, 0, 5) if broken == "q" else (1, 0)] = True
    if broken == "v":
        expected[1, 0] = False
        expected[1, 0, :, 2] = True
    np.testing.assert_array_equal(np.isnan(out), expected)
    np.testing.assert_array_equal(np.isnan(lse), expected.all(axis=-1))


GRIDS = [(1, 1), (1, 19), (19, 1), (3, 37), (37, 3), (8, 16), (24, 24)]


def test_reference_bias_agrees_with_torch() -> None:
    grid = (3, 4)
    arrays = (*inputs(2, 3, 12, 12, 5, 4, "float64"), table(3, grid, "float64"))
    q, k, v, bias = (torch.from_numpy(x).requires_grad_() for x in arrays)
    mask = torch.stack(
        [bias[:, 2 + i // 4 - j // 4, 3 + i % 4 - j % 4] for i in range(12) for j in range(12)], -1
    ).unflatten(-1, (12, 12))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
    grad_out = normal(*out.shape, dtype="float64", seed=4)
    out.backward(torch.from_numpy(grad_out))
    options = {"scale": 0.3, "bias": arrays[3], "grid": grid}
    np.testing.assert_allclose(reference.attention(*arrays[:3], **options)[0], out.detach(), rtol=1e-12, atol=1e-14)
    expected = reference.attention_backward(grad_out, *arrays[:3], **options)
    for grad, tensor in zip(expected, (q, k, v, bias), strict=True):
        np.testing.assert_allclose(grad, tensor.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("grid", GRIDS)
def test_bias(grid: tuple[int, int], dtype: str) -> None:
    positions = grid[0] * grid[1]
    check_biased(*inputs(2, 3, positions, positions, 8, 5, dtype), table(3, grid, dtype), grid, 0.35)


@given(st.integers(0, 2), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.sampled_from(FLOATS))
def test_bias_on_any_grid(images: int, heads: int, height: int, width: int, dtype: str) -> None:
    grid, positions = (height, width), height * width
    check_biased(*inputs(images, heads, positions, positions, 4, 3, dtype), table(heads, grid, dtype), grid, 0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bias_layouts(layout: str) -> None:
    grid, place = (3, 5), LAYOUTS[layout]
    q, k, v = inputs(2, 3, 15, 15, 4, 3)
    bias, grad_out = table(3, grid), normal(2, 3, 15, 3, seed=4)
    expected = run_biased(q, k, v, bias, grid, 0.5, grad_out)
    out, lse = place(unwritten(2, 3, 15, 3)), place(unwritten(2, 3, 15))
    *grads, grad_bias = (place(unwritten(*x.shape)) for x in (q, k, v, bias))
    q, k, v, bias, grad_out = (place(x) for x in (q, k, v, bias, grad_out))
    _native.attention(q, k, v, out, lse, bias, scale=0.5, grid=grid)
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, bias, grad_bias, scale=0.5, grid=grid)
    for found, want in zip((out, lse, *grads, grad_bias), expected, strict=True):
        np.testing.assert_array_equal(found, want)


def test_a_bias_of_minus_infinity_hides_keys() -> None:
    """Each query sees its own row of the grid alone, so whole tiles of keys are hidden from most queries."""
    grid = (12, 12)
    bias = table(2, grid)
    bias[:, np.arange(23) != 11] = -np.inf
    q, k, v = inputs(1, 2, 144, 144, 4, 3)
    check_biased(q, k, v, bias, grid, 0.5)
    out = unwritten(1, 2, 144, 3)
    _native.attention(q, k, v, out, unwritten(1, 2, 144), bias, scale=0.5, grid=grid)
    v[:, :, 12:] += 100
    again = unwritten(1, 2, 144, 3)
    _native.attention(q, k, v, again, unwritten(1, 2, 144), bias, scale=0.5, grid=grid)
    np.testing.assert_array_equal(again[:, :, :12], out[:, :, :12])


def test_nan_in_the_bias_reaches_the_pairs_that_take_it() -> None:
    """The first entry of a table is for the first query and the last key only."""
    grid = (3, 5)
    bias = table(2, grid)
    bias[1, 0, 0] = np.nan
    out, lse, *grads = run_biased(*inputs(2, 2, 15, 15, 4, 3), bias, grid, 0.5, normal(2, 2, 15, 3, seed=4))
    expected = np.zeros(lse.shape, bool)
    expected[:, 1, 0] = True
    np.testing.assert_array_equal(np.isnan(lse), expected)
    np.testing.assert_array_equal(np.isnan(out).all(-1), expected)
    assert all(np.isnan(grad[:, 1]).any() for grad in grads[:3])
    assert np.isnan(grads[3][1]).any()
    assert not np.isnan(grads[3][0]).any()


@pytest.mark.parametrize("grid", [(2, 4), (-2, -3), (6, 1 << 62), (0, 6)])
def test_a_grid_that_does_not_fit(grid: tuple[int, int]) -> None:
    q, k, v = inputs(1, 2, 6, 6, 4, 3)
    with pytest.raises(ArgumentError, match=rf"attention: grid is {grid[0]} x {grid[1]}, q has 6 positions and k 6"):
        _native.attention(q, k, v, unwritten(1, 2, 6, 3), unwritten(1, 2, 6), table(2, (2, 3)), scale=0.5, grid=grid)


def test_a_grid_turned_round() -> None:
    q, k, v = inputs(1, 2, 6, 6, 4, 3)
    with pytest.raises(ArgumentError, match=r"attention: bias has shape \[2,3,5\], expected .* = \[2,5,3\]"):
        _native.attention(q, k, v, unwritten(1, 2, 6, 3), unwritten(1, 2, 6), table(2, (2, 3)), scale=0.5, grid=(3, 2))


def test_bias_and_grid_and_gradient_go_together() -> None:
    q, k, v = inputs(1, 2, 6, 6, 4, 3)
    bias, out, lse = table(2, (2, 3)), unwritten(1, 2, 6, 3), unwritten(1, 2, 6)
    with pytest.raises(ArgumentError, match="attention: bias is given without grid"):
        _native.attention(q, k, v, out, lse, bias, scale=0.5)
    with pytest.raises(ArgumentError, match="attention: grid is given without bias"):
        _native.attention(q, k, v, out, lse, scale=0.5, grid=(2, 3))
    for pair, option, message in (
        ((bias, None), {"grid": (2, 3)}, "bias is given without grad_bias"),
        ((None, bias), {}, "grad_bias is given without bias"),
        ((bias, bias), {}, "bias is given without grid"),
    ):
        with pytest.raises(ArgumentError, match=f"attention_backward: {message}"):
            _native.attention_backward(out, q, k, v, out, lse, q.copy(), k.copy(), v.copy(), *pair, scale=0.5, **option)
    for option, message in (({"bias": bias}, "without grid"), ({"grid": (2, 3)}, "without bias")):
        with pytest.raises(ArgumentError, match=message):
            ops.attention(q, k, v, **option)


Convert = Callable[[Array], Any]


def expanded(array: Array) -> torch.Tensor:
    return torch.zeros(1).expand(array.shape)


@pytest.mark.parametrize("convert", [np.asarray, expanded])
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_sizes_that_no_memory_has(name: str, convert: Convert) -> None:
    """One number in memory that counts as 2^60: an index of 32 bits, or a copy, would overflow."""
    huge, small = (np.broadcast_to(np.float32(0), (1, 1, side, side)) for side in (2**30, 2))
    tensors = {other: convert(huge if other == name else small) for other in "qkv"}
    with pytest.raises(ArgumentError, match=rf"attention: {name} has shape \[1, 1, 1073741824, .*at most 2\^47 bytes"):
        ops.attention(**tensors)


@pytest.mark.parametrize("convert", [np.asarray, expanded])
def test_an_output_that_no_memory_has(convert: Convert) -> None:
    q, k, v = (convert(np.broadcast_to(np.float32(0), (1, 1, *s))) for s in ((2**31, 1), (1, 1), (1, 2**31)))
    with pytest.raises(ArgumentError, match=r"q and v ask for an output that has shape \[1, 1, 2147483648, "):
        ops.attention(q, k, v)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_ranks_are_checked_before_an_output_is_made(name: str, convert: Convert) -> None:
    tensors = dict(zip("qkv", inputs(1, 2, 5, 5, 4, 4), strict=True))
    tensors[name] = tensors[name][0]
    with pytest.raises(ArgumentError, match=rf"attention: {name} has 3 dimensions \[2, 5, 4\], expected \[N,H,[LM],d"):
        ops.attention(**{name: convert(x) for name, x in tensors.items()})


def test_queries_of_no_size() -> None:
    with pytest.raises(ArgumentError, match=r"attention: q has shape \[1, 2, 5, 0\], expected .* dk of at least 1"):
        ops.attention(*inputs(1, 2, 5, 5, 0, 4))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_heads_that_do_not_match(convert: Convert) -> None:
    q, k, v = (convert(x) for x in inputs(1, 6, 5, 5, 4, 3))
    with pytest.raises(ArgumentError, match=r"attention: k has shape \[1,3,5,4\], expected .* = \[1,6,5,4\]"):
        ops.attention(q, k[:, ::2], v)


def test_tensors_elsewhere() -> None:
    q, k, v = (torch.from_numpy(x) for x in inputs(1, 2, 5, 5, 4, 3))
    with pytest.raises(ArgumentError, match="attention: k is on meta, q is on cpu; they must be equal"):
        ops.attention(q, k.to("meta"), v)


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_dtypes_that_are_not_floating(dtype: str) -> None:
    arrays = [x.astype(dtype) for x in inputs(1, 2, 5, 5, 4, 3)]
    for convert in (np.asarray, torch.from_numpy):
        with pytest.raises(ArgumentError, match=r"q.*expected float32"):
            ops.attention(*(convert(x) for x in arrays))


def test_numpy_arrays_of_any_strides() -> None:
    q, k, v = inputs(2, 3, 5, 7, 4, 4)
    expected = ops.attention(q, k, v)
    for place in LAYOUTS.values():
        np.testing.assert_array_equal(ops.attention(place(q), place(k), place(v)), expected)
    turned = [np.asfortranarray(x) for x in (q, k, v)]
    np.testing.assert_array_equal(ops.attention(*turned), expected)


def test_the_output_lies_as_the_queries_do() -> None:
    """So that neither what a linear layer gives to attention nor what it takes from it is copied."""
    q, k, v = (torch.from_numpy(x) for x in inputs(2, 3, 5, 5, 4, 4))
    beside = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in (q, k, v)]
    found = ops.attention(*beside)
    assert found.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(found, ops.attention(q, k, v), rtol=0, atol=0)
    found.square().sum().backward()
    assert all(x.grad is not None and x.grad.transpose(1, 2).is_contiguous() for x in beside)
