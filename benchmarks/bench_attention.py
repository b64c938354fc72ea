"""`attention`: forward and backward, against every form of torch's that takes the shapes.

torch's fused kernel needs keys and values of one size. `flash_padded` gets queries and keys that were filled up with
zeros *before* the clock starts, which is more than a network could do for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from contenders import Array, Check, backward, compiled, doubles, eager, equals, normal, outputs, size, tensors
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from normscan import _native, ops
from reference import attention as reference

MIB = 1 << 20
GRID = (32, 32)
BACKENDS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}
"""All that torch has for a CPU."""


class Entry(NamedTuple):
    """One case. Without `whole`, the peers that would hold the L x L matrix are not asked."""

    name: str
    batch: int
    heads: int
    length: int
    key_size: int
    value_size: int
    goals: Mapping[str, float]
    backward: bool = False
    whole: bool = True
    memory_limit: int | None = None
    dtype: str = "float32"

    @property
    def scale(self) -> float:
        """As everybody's default."""
        return self.key_size**-0.5


ENTRIES = (
    Entry("L 16384, 16/128", 1, 1, 16384, 16, 128, {}, whole=False, memory_limit=64 * MIB),
    Entry("8 x L 1936, 16/128", 8, 1, 1936, 16, 128, {"best": 1.5}),
    Entry("4 heads x L 1936, 64/64", 1, 4, 1936, 64, 64, {"best": 0.9}),
    Entry("8 x L 1936, 16/128 backward", 8, 1, 1936, 16, 128, {"best": 1}, backward=True),
    Entry("4 heads x L 1936, 64/64 backward", 1, 4, 1936, 64, 64, {"best": 1}, backward=True),
)


HALVES = tuple(
    Entry("4 heads x L 1936, 64/64" + " backward" * backward, 1, 4, 1936, 64, 64, {}, backward=backward, dtype=dtype)
    for backward in (False, True)
    for dtype in ("float16", "bfloat16")
)
"""16 bits in memory, sums in float32."""


def cases() -> Iterator[Case]:
    """One at a time; the long one first, so that no memory of an earlier one hides what it takes."""
    for entry in ENTRIES:
        yield backward_case(entry) if entry.backward else forward_case(entry)
    yield bias_case()
    for entry in HALVES:
        yield half_case(entry)


def plain(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """As people write it."""
    return (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, scale: float, backend: SDPBackend, bias: Tensor | None = None) -> Tensor:
    """One backend of torch's fused attention; RuntimeError where it does not take the shapes."""
    with sdpa_kernel(backend), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns why, and raises then
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None], scale=scale)


def padded(entry: Entry, arrays: list[Array]) -> list[Array]:
    """Queries and keys as wide as the values."""
    width = [(0, 0)] * 3 + [(0, entry.value_size - entry.key_size)]
    return [np.pad(arrays[0], width), np.pad(arrays[1], width), arrays[2]]


def inputs(entry: Entry) -> list[Array]:
    """q, k, v."""
    sizes = (entry.key_size, entry.key_size, entry.value_size)
    return normal(0, *[(entry.batch, entry.heads, entry.length, s) for s in sizes])


def truth(entry: Entry) -> Callable[..., Any]:
    """torch's fused kernel in float64, which holds no L x L matrix; the tests have the slow one."""
    return partial(fused, scale=entry.scale, backend=SDPBackend.FLASH_ATTENTION)


def forward_case(entry: Entry) -> Case:
    """softmax(q k^T scale) v."""
    arrays, options = inputs(entry), {"scale": entry.scale}
    expected = truth(entry)(*tensors(doubles(padded(entry, arrays))))
    check = equals("attention", expected)
    out, lse = outputs(arrays[2].shape, arrays[2].shape[:3])
    q, k, v = tensors(arrays)

    def native() -> Array:
        _native.attention(*arrays, out, lse, **options)
        return out

    ours = (Contender("native", native, check), Contender("op", lambda: ops.attention(q, k, v), check))
    peers = [backend(entry, name, arrays, check) for name in BACKENDS if entry.whole or name != "math"]
    if entry.key_size != entry.value_size:
        peers.append(backend(entry, "flash", padded(entry, arrays), check, "flash_padded"))
    if entry.whole:
        formula = partial(plain, **options)
        peers += [eager(formula, arrays, check), compiled(formula, arrays, check)]
    return assemble(entry, ours, peers, size(*arrays, out), entry.key_size + entry.value_size)


def backend(entry: Entry, name: str, arrays: list[Array], check: Check, shown: str | None = None) -> Contender:
    """A forward pass of one backend."""
    q, k, v = tensors(arrays)
    return Contender(shown or name, lambda: fused(q, k, v, scale=entry.scale, backend=BACKENDS[name]), check)


def backward_case(entry: Entry) -> Case:
    """The gradients of q, k and v, from what a forward pass left behind."""
    arrays, options = inputs(entry), {"scale": entry.scale}
    wide = padded(entry, arrays)
    (gradient,) = normal(1, arrays[2].shape)
    expected = backward(truth(entry), doubles(wide), gradient.astype(np.float64))()
    check = equals("attention_backward", *narrow(entry, expected))
    out, lse, *grads = outputs(arrays[2].shape, arrays[2].shape[:3], *[a.shape for a in arrays])
    _native.attention(*arrays, out, lse, **options)

    def native() -> tuple[Array, ...]:
        _native.attention_backward(gradient, *arrays, out, lse, *grads, **options)
        return tuple(grads)

    def peer(name: str, formula: Callable[..., Any], arrays: list[Array]) -> Contender:
        return Contender(name, backward(formula, arrays, gradient), lambda found: check(narrow(entry, found)))

    peers = [peer(n, partial(fused, backend=b, **options), arrays) for n, b in BACKENDS.items()]
    if entry.key_size != entry.value_size:
        peers.append(peer("flash_padded", partial(fused, backend=BACKENDS["flash"], **options), wide))
    peers.append(peer("eager", partial(plain, **options), arrays))
    ours = (Contender("native", native, check), peer("op", ops.attention, arrays))
    moved = size(*arrays, out, lse, gradient, *grads)
    # Five products: the scores again, the gradients of probabilities and values, and those of queries and keys.
    return assemble(entry, ours, peers, moved, 3 * entry.key_size + 2 * entry.value_size)


def near(*expected: Tensor) -> Check:
    """Within 2 % of the largest: torch rounds probabilities to 16 bits, too, and misses the bounds that ours keeps."""

    def check(found: Any) -> None:
        for actual, want in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
            torch.testing.assert_close(actual.double(), want, rtol=0, atol=0.02 * want.abs().max().item())

    return check


def half_case(entry: Entry) -> Case:
    """16 bits in memory: forwards, or the gradients of a forward pass that the first call made."""
    dtype, formula = getattr(torch, entry.dtype), partial(fused, scale=entry.scale, backend=BACKENDS["flash"])
    arrays = [t.to(dtype) for t in tensors(inputs(entry))]
    gradient = torch.from_numpy(*normal(1, arrays[2].shape)).to(dtype)

    def run(formula: Callable[..., Any], arrays: list[Tensor], gradient: Tensor) -> Callable[[], Any]:
        if not entry.backward:
            return lambda: formula(*arrays)
        leaves = [t.detach().clone().requires_grad_() for t in arrays]
        out = cache(lambda: formula(*leaves))
        return lambda: torch.autograd.grad(out(), leaves, gradient, retain_graph=True)

    expected = run(formula, [t.double() for t in arrays], gradient.double())()
    expected = expected if isinstance(expected, tuple) else (expected,)
    check = equals("attention_backward" if entry.backward else "attention", *expected, dtype=entry.dtype)
    ours = Contender("op", run(ops.attention, arrays, gradient), check)
    peer = Contender("flash", run(formula, arrays, gradient), near(*expected))
    moved = (sum(t.nbytes for t in arrays) + gradient.nbytes) * (2 if entry.backward else 1)
    width = 3 * entry.key_size + 2 * entry.value_size if entry.backward else entry.key_size + entry.value_size
    return assemble(entry, (ours,), [peer], moved, width)


def bias_case() -> Case:
    """A bias by relative position on a grid. torch needs it as an L x L table, made once, or anew in every call.

    In training it is made in every call, because its table learns; `flash_made` is the case that the goal is about.
    """
    height, width = GRID
    shape = (1, 4, height * width, 64)
    *arrays, table = normal(0, shape, shape, shape, (4, 2 * height - 1, 2 * width - 1))
    rows, columns = reference.places(GRID)
    flash = {"scale": 64**-0.5, "backend": BACKENDS["flash"]}
    check = equals(
        "attention", fused(*tensors(doubles(arrays)), bias=torch.from_numpy(table[:, rows, columns]).double(), **flash)
    )
    out, lse = outputs(shape, shape[:3])

    def native() -> Array:
        _native.attention(*arrays, out, lse, table, scale=64**-0.5, grid=GRID)
        return out

    q, k, v = tensors(arrays)
    small, whole = torch.from_numpy(table), torch.from_numpy(table[:, rows, columns])
    places = torch.from_numpy(rows), torch.from_numpy(columns)
    made = Contender("flash_made", lambda: fused(q, k, v, bias=small[:, places[0], places[1]], **flash), check)
    kept = Contender("flash_kept", lambda: fused(q, k, v, bias=whole, **flash), check)
    op = Contender("op", lambda: ops.attention(q, k, v, bias=small, grid=GRID), check)
    return Case(
        op="attention",
        name="4 heads x 32x32, 64/64, relative bias",
        ours=(Contender("native", native, check), op),
        peers=(made, kept),
        moved=size(*arrays, table, out),
        flops=2 * 4 * (height * width) ** 2 * 128,
        goals={"flash_made": 1.5},
    )


def narrow(entry: Entry, grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients without those of the zeros."""
    return (grads[0][..., : entry.key_size], grads[1][..., : entry.key_size], grads[2])


def assemble(entry: Entry, ours: tuple[Contender, ...], peers: list[Contender], moved: int, width: int) -> Case:
    """The case of an entry; `width`: channels of all products over the scores together."""
    flops = 2 * entry.batch * entry.heads * entry.length**2 * width
    return Case("attention", entry.name, ours, peers, moved, flops, entry.goals, entry.memory_limit, entry.dtype)
