"""Attention in float16 and bfloat16: what is stored has 16 bits, what is summed has 32. And the conversions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import SIDES, Array, normal
from normscan import _native, ops
from normscan.errors import ArgumentError
from reference import attention as reference
from tolerances import assert_close

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
every_half = pytest.mark.parametrize("dtype", HALVES)


def half(array: Array, dtype: str) -> torch.Tensor:
    return torch.from_numpy(array).to(HALVES[dtype])


def unwritten(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, torch.nan, dtype=dtype)


def inputs(n: int, h: int, queries: int, keys: int, dk: int, dv: int, dtype: str) -> list[torch.Tensor]:
    """q, k, v and the gradient of the output."""
    shapes = ((n, h, queries, dk), (n, h, keys, dk), (n, h, keys, dv), (n, h, queries, dv))
    return [half(normal(*shape, seed=i), dtype) for i, shape in enumerate(shapes)]


def run(tensors: list[torch.Tensor], scale: float, **bias: Any) -> tuple[torch.Tensor, ...]:
    """out, lse, and the gradients of q, k, v and (where there is one) bias."""
    *qkv, grad_out = tensors
    out, lse = unwritten(*grad_out.shape, dtype=grad_out.dtype), unwritten(*grad_out.shape[:3])
    _native.attention(*qkv, out, lse, scale=scale, **bias)
    grads = [unwritten(*t.shape, dtype=t.dtype) for t in qkv]
    more = {"grad_bias": unwritten(*bias["bias"].shape)} if bias else {}
    _native.attention_backward(grad_out, *qkv, out, lse, *grads, scale=scale, **bias, **more)
    return out, lse, *grads, *more.values()


def check(tensors: list[torch.Tensor], scale: float, dtype: str, **bias: Any) -> None:
    """Everything against the reference of the very same rounded numbers."""
    q, k, v, grad_out = (t.double().numpy() for t in tensors)
    out, lse, *grads = run(tensors, scale, **bias)
    expected, expected_lse = reference.attention(q, k, v, scale=scale, **bias)
    assert out.dtype == HALVES[dtype]
    assert_close(out.float().numpy(), expected, "attention", dtype=dtype)
    assert_close(lse.numpy(), expected_lse, "attention")
    score = np.abs(grad_out).sum(-1).max(initial=0) * np.abs(v).max(initial=0)
    sizes = [scale * score * np.abs(x).max(initial=0) for x in (k, q)] + [None] + [score] * len(bias)
    wanted = reference.attention_backward(grad_out, q, k, v, scale=scale, **bias)
    for found, want, size in zip(grads, wanted, sizes, strict=False):
        assert_close(found.float().numpy(), want, "attention_backward", size, dtype=dtype)


@every_half
@pytest.mark.parametrize("keys", SIDES)
@pytest.mark.parametrize("queries", SIDES)
def test_lengths(queries: int, keys: int, dtype: str) -> None:
    check(inputs(1, 2, queries, keys, 16, 16, dtype), 0.25, dtype)


@every_half
@pytest.mark.parametrize(("key_size", "value_size"), [(1, 1), (19, 7), (7, 19), (64, 128), (111, 1), (1, 111)])
def test_head_sizes(key_size: int, value_size: int, dtype: str) -> None:
    check(inputs(2, 2, 19, 23, key_size, value_size, dtype), key_size**-0.5, dtype)


@every_half
def test_more_keys_than_a_part_and_than_a_chunk(dtype: str) -> None:
    check(inputs(1, 2, 70, 4700, 3, 5, dtype), 3**-0.5, dtype)


@every_half
def test_an_empty_batch(dtype: str) -> None:
    check(inputs(0, 2, 5, 7, 3, 4, dtype), 0.5, dtype)


@every_half
@pytest.mark.parametrize("grid", [(1, 1), (3, 37), (24, 24)])
def test_bias(grid: tuple[int, int], dtype: str) -> None:
    positions = grid[0] * grid[1]
    table = normal(3, 2 * grid[0] - 1, 2 * grid[1] - 1, seed=5)
    check(inputs(2, 3, positions, positions, 8, 5, dtype), 0.35, dtype, bias=table, grid=grid)


@given(
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from(sorted(HALVES)),
)
def test_any_shape(n: int, h: int, queries: int, keys: int, key_size: int, value_size: int, dtype: str) -> None:
    check(inputs(n, h, queries, keys, key_size, value_size, dtype), key_size**-0.5, dtype)


def heads_beside(t: torch.Tensor) -> torch.Tensor:
    return t.transpose(1, 2).contiguous().transpose(1, 2)


def channels_last(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous(memory_format=torch.channels_last)


def as_map(t: torch.Tensor) -> torch.Tensor:
    """With one head: positions side by side, as in a feature map."""
    return t.transpose(2, 3).contiguous().transpose(2, 3)


@every_half
@pytest.mark.parametrize(("place", "heads"), [(heads_beside, 3), (channels_last, 3), (as_map, 1)])
def test_layouts(place: Any, heads: int, dtype: str) -> None:
    tensors = inputs(2, heads, 70, 83, 13, 9, dtype)
    q, k, v, grad_out = (place(t) for t in tensors)
    out, lse = place(torch.empty_like(grad_out)), unwritten(2, heads, 70)
    grads = [place(torch.empty_like(t)) for t in (q, k, v)]
    _native.attention(q, k, v, out, lse, scale=0.3)
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, scale=0.3)
    for found, want in zip((out, lse, *grads), run(tensors, 0.3), strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=0)


@every_half
def test_any_number_of_threads_gives_the_same_bits(dtype: str) -> None:
    tensors, before = inputs(2, 3, 150, 600, 16, 8, dtype), _native.threads()
    try:
        _native.set_threads(1)
        expected = run(tensors, 0.25)
        for count in (2, 3):
            _native.set_threads(count)
            for found, want in zip(run(tensors, 0.25), expected, strict=True):
                assert torch.equal(found, want)
    finally:
        _native.set_threads(before)


def through(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """One position's values, which attention over one key gives back: from 16 bits to float32 and back to 16."""
    v = values.to(HALVES[dtype]).reshape(1, 1, 1, -1)
    one, out = torch.zeros(1, 1, 1, 1, dtype=v.dtype), torch.full_like(v, 7)
    _native.attention(one, one, v, out, torch.zeros(1, 1, 1), scale=1.0)
    return out.flatten()


@every_half
def test_every_number_comes_back(dtype: str) -> None:
    """Zeros, subnormals, infinities and NaN among them. (One key: the weight is 1. Its sum starts from +0.)"""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(HALVES[dtype])
    found = through(every, dtype)
    torch.testing.assert_close(found, every, rtol=0, atol=0, equal_nan=True)


@every_half
def test_rounds_to_nearest_even(dtype: str) -> None:
    """The mean of two neighbours is a tie; three of four decide. (Above 0x7E00 the sums of bfloat16 overflow.)"""
    every = torch.arange(0x7C00 if dtype == "float16" else 0x7E00, dtype=torch.int32).to(torch.int16)
    low, high = every[:-1].view(HALVES[dtype]), every[1:].view(HALVES[dtype])
    for keys in ((low, high), (low, low, low, high), (low, high, high, high)):
        v = torch.stack(keys).reshape(1, 1, len(keys), -1)
        q, k = torch.zeros(1, 1, 1, 1, dtype=v.dtype), torch.zeros(1, 1, len(keys), 1, dtype=v.dtype)
        out = torch.full_like(v[:, :, :1], 7)
        _native.attention(q, k, v, out, torch.zeros(1, 1, 1), scale=1.0)
        exact = torch.stack(keys).double().sum(0) / len(keys)
        large = exact > 1e-37  # below, float32 itself is subnormal
        torch.testing.assert_close(out.flatten()[large], exact.to(v.dtype)[large], rtol=0, atol=0)


def test_overflow_to_infinity() -> None:
    """Of the gated output: 65504 + 16 is the first that float16 rounds up."""
    for added, expected in ((8.0, 65504.0), (16.0, float("inf"))):
        one = torch.zeros(1, 1, 1, 1, dtype=torch.float16)
        residual, out = torch.full_like(one, 65504.0), torch.zeros_like(one)
        v, gamma = torch.ones_like(one), torch.tensor([added])
        _native.attention(one, one, v, out, torch.zeros(1, 1, 1), residual=residual, gamma=gamma, scale=1.0)
        assert out.item() == expected


@every_half
def test_bias_and_lse_are_float32(dtype: str) -> None:
    q, k, v, out = inputs(1, 2, 6, 6, 4, 3, dtype)
    with pytest.raises(ArgumentError, match=rf"attention: lse is {dtype}, expected float32"):
        _native.attention(q, k, v, out, unwritten(1, 2, 6, dtype=HALVES[dtype]), scale=0.5)
    bias = unwritten(2, 3, 5, dtype=HALVES[dtype])
    with pytest.raises(ArgumentError, match=rf"attention: bias is {dtype}, expected float32"):
        _native.attention(q, k, v, out, unwritten(1, 2, 6), bias, scale=0.5, grid=(2, 3))


@pytest.mark.parametrize("index", [1, 2])
def test_a_mixture_is_refused(index: int) -> None:
    tensors = inputs(1, 2, 5, 5, 4, 3, "float16")[:3]
    tensors[index] = tensors[index].float()
    with pytest.raises(ArgumentError, match=rf"attention: {'qkv'[index]} is float32, q is float16; they must be equal"):
        ops.attention(*tensors)


def test_numpy_has_float16() -> None:
    q, k, v = (t.numpy() for t in inputs(1, 2, 9, 11, 4, 3, "float16")[:3])
    found = ops.attention(q, k, v)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, ops.attention(*(torch.from_numpy(x) for x in (q, k, v))).numpy())


@every_half
@pytest.mark.parametrize("op", [ops.gaussian, ops.distance_map])
def test_other_ops_refuse_16_bits(op: Any, dtype: str) -> None:
    a, options = torch.ones(2, 3, 4, 5, dtype=HALVES[dtype]), {"metric": "l1"} if op is ops.distance_map else {}
    arguments = (a, a) if options else (a, a[0, :, 0, 0].contiguous(), a[0, :, 0, 0].contiguous())
    with pytest.raises(ArgumentError, match=rf"(z|a) is {dtype}, expected float32 or float64"):
        op(*arguments, **options)


def _main() -> None:
    """For test_simd.py: what depends on the level."""
    for dtype in HALVES:
        test_every_number_comes_back(dtype)
        test_rounds_to_nearest_even(dtype)
        for size in (1, 7, 16, 33):
            check(inputs(2, 2, 70, 83, size, size, dtype), size**-0.5, dtype)
    test_overflow_to_infinity()
    print(_native.simd_level())


if __name__ == "__main__":
    sys.exit(_main())
