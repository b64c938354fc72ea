"""What the GPU's cases share: inputs made on the device, native calls on its stream, checks that do not leave it.

With a Place on the CPU and `quick`, the same cases run small and without a GPU: so their plumbing is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from timing import Contender
from torch import Tensor

from normscan.ops.autograd.native import native
from tolerances import TABLE

Formula = Callable[..., Any]
Check = Callable[[Any], None]

GIGABYTE_SHARE = 0.8
"""Least share of the copy's bandwidth for ops that only move memory, at a gigabyte moved or more."""
SMALL = 20
"""No side of a quick case is longer; more than the radius of the widest blur."""
CHUNK = 1 << 26
"""Elements that are taken to float64 at once."""


class Place(NamedTuple):
    """The device that everybody runs on."""

    device: str = "cuda"
    quick: bool = False

    def shape(self, *sizes: int) -> tuple[int, ...]:
        """These sizes, or small ones for a quick look."""
        return tuple(min(size, SMALL) for size in sizes) if self.quick else sizes

    def normal(self, seed: int, *shapes: Sequence[int]) -> list[Tensor]:
        """Standard normal float32 tensors."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return [torch.randn(tuple(shape), generator=generator, device=self.device) for shape in shapes]

    def outputs(self, *shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Memory to write into; NaN, so that a value that nobody wrote is seen."""
        return [torch.full(tuple(shape), torch.nan, dtype=dtype, device=self.device) for shape in shapes]

    def peers(self, formula: Formula, inputs: Sequence[Tensor], check: Check) -> list[Contender]:
        """torch as it is, and compiled for these very shapes; not for a quick look, because that takes long."""
        found = [Contender("eager", lambda: formula(*inputs), check)]
        if not self.quick:
            function = torch.compile(formula, fullgraph=True, dynamic=False)
            found.append(Contender("compile", lambda: function(*inputs), check))
        return found


def ours(op: str, inputs: Sequence[Any], outputs: list[Tensor], check: Check, **options: Any) -> Contender:
    """The native op itself, into memory that is there. Bound by the first call: an op that is missing is a failure."""
    result = tuple(outputs) if len(outputs) > 1 else outputs[0]
    call = cache(lambda: bound(op, *inputs, *outputs, **options))

    def run() -> Any:
        call()()
        return result

    return Contender("native", run, check)


def bound(op: str, *arguments: Any, **options: Any) -> Callable[[], None]:
    """The native function with its arguments, and with the workspace that it asks for on a GPU."""
    first = next(flat(arguments))
    module = native(first)
    if hasattr(module, f"{op}_workspace"):
        count = getattr(module, f"{op}_workspace")(*arguments, **options)
        options["workspace"] = torch.empty(count, dtype=torch.uint8, device=first.device)
    function = getattr(module, op)
    return lambda: function(*arguments, **options)


def flat(arguments: Any) -> Any:
    """All tensors in a tree of lists and tuples."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from flat(argument)


def in_float64(formula: Formula, batched: Sequence[Tensor], *shared: Tensor) -> Any:
    """The formula in float64, some rows of the batch at a time: all at once would take twice the case's memory."""
    rows = max(1, CHUNK * len(batched[0]) // sum(t.numel() for t in batched))
    rest = [t.double() for t in shared]
    pieces = zip(*(t.split(rows) for t in batched), strict=True)
    parts = [formula(*(t.double() for t in piece), *rest) for piece in pieces]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)


def equals(op: str, *expected: Tensor, dtype: str = "float32") -> Check:
    """The result, one tensor or a tuple, lies within the bounds of tests/tolerances.py around these."""
    row = TABLE[op, dtype]
    smallest = 0.0 if op.endswith("_backward") else 1.0

    def check(found: Any) -> None:
        for actual, want in zip(flat([found]), expected, strict=True):
            scale = max(smallest, want.abs().max().item())
            close(actual, want, rtol=row.rtol, atol=row.atol * scale)

    return check


def near(share: float, *expected: Tensor) -> Check:
    """The result lies within this share of the largest expected magnitude."""

    def check(found: Any) -> None:
        for actual, want in zip(flat([found]), expected, strict=True):
            close(actual, want, rtol=0.0, atol=share * want.abs().max().item())

    return check


def close(actual: Tensor, want: Tensor, *, rtol: float, atol: float) -> None:
    """AssertionError with the worst error, in units of what is allowed. NaN is never right."""
    assert actual.shape == want.shape, f"shape {tuple(actual.shape)}, expected {tuple(want.shape)}"
    worst = 0.0
    for a, w in zip(actual.reshape(-1).split(CHUNK), want.reshape(-1).split(CHUNK), strict=True):
        error = (a.double() - w).abs() / (rtol * w.abs() + atol)
        worst = max(worst, error.nan_to_num(torch.inf).max().item())
    assert worst <= 1, f"the worst error is {worst:.3g} times what is allowed (rtol {rtol:g}, atol {atol:.3g})"


def size(*tensors: Any) -> int:
    """Bytes of all of them."""
    return sum(t.nbytes for t in flat(tensors))


def by(shape: Sequence[int]) -> str:
    """128x256x64x64."""
    return "x".join(map(str, shape))
