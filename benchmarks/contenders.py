"""The ways to compute one thing that the benchmarks compare, and the check that they agree.

A *formula* is a function written with the operators that numpy arrays and torch tensors share, so that one text serves
as the float64 truth, the numpy peer, the eager peer and the compiled peer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from timing import Contender
from torch import Tensor

from tolerances import assert_close

Array = np.ndarray
Formula = Callable[..., Any]
Check = Callable[[Any], None]


def equals(op: str, *expected: Any, dtype: str | None = None) -> Check:
    """The result, one array or a tuple of them, lies within the bounds of tests/tolerances.py around these.

    `dtype`: of tensors of 16 bits; numpy has no bfloat16.
    """

    def check(found: Any) -> None:
        found = found if isinstance(found, tuple) else (found,)
        for actual, want in zip(found, expected, strict=True):
            assert_close(np.asarray(actual if dtype is None else actual.float()), np.asarray(want), op, dtype=dtype)

    return check


def within(bound: float, expected: Array) -> Check:
    """The result lies within an absolute bound around `expected`."""

    def check(found: Any) -> None:
        np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=bound)

    return check


def normal(seed: int, *shapes: Sequence[int]) -> list[Array]:
    """Standard normal float32 arrays."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def doubles(arrays: Sequence[Array]) -> list[Array]:
    """The same values in float64."""
    return [a.astype(np.float64) for a in arrays]


def tensors(arrays: Sequence[Array]) -> list[Tensor]:
    """The same memory, as torch sees it."""
    return [torch.from_numpy(a) for a in arrays]


def outputs(*shapes: Sequence[int]) -> tuple[Array, ...]:
    """Memory to write into, mapped already; NaN, so that a value that nobody wrote is seen."""
    return tuple(np.full(shape, np.nan, np.float32) for shape in shapes)


def size(*arrays: Array) -> int:
    """Bytes of all of them."""
    return sum(a.nbytes for a in arrays)


def eager(formula: Formula, arrays: Sequence[Array], check: Check) -> Contender:
    """torch, one kernel after the other."""
    inputs = tensors(arrays)
    return Contender("eager", lambda: formula(*inputs), check)


def compiled(formula: Formula, arrays: Sequence[Array], check: Check) -> Contender:
    """torch.compile for these very shapes, compiled by the first call."""
    function, inputs = torch.compile(formula, fullgraph=True, dynamic=False), tensors(arrays)
    return Contender("compile", lambda: function(*inputs), check)


def in_numpy(formula: Formula, arrays: Sequence[Array], check: Check) -> Contender:
    """numpy with its own BLAS."""
    return Contender("numpy", lambda: formula(*arrays), check)


def forward_and_backward(formula: Formula, arrays: Sequence[Array], gradient: Array) -> Callable[[], Any]:
    """A training step's share: the formula, then the gradients of all its inputs."""
    leaves, grad = [t.requires_grad_() for t in tensors(arrays)], torch.from_numpy(gradient)
    return lambda: torch.autograd.grad(formula(*leaves), leaves, grad)


def backward(formula: Formula, arrays: Sequence[Array], gradient: Array) -> Callable[[], Any]:
    """The gradients of all inputs, from a graph that the first call builds."""
    leaves, grad = [t.requires_grad_() for t in tensors(arrays)], torch.from_numpy(gradient)
    forward = cache(lambda: formula(*leaves))
    return lambda: torch.autograd.grad(forward(), leaves, grad, retain_graph=True)
