"""`attention` on a GPU at 4096 positions: forward and backward, in every precision, against every backend of torch.

`<backend>_padded` gets queries and keys that were filled up with zeros *before* the clock starts, so that kernels that
need keys and values of one size take part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from bench_attention import fused, plain
from gpu.place import Check, Place, bound, equals, in_float64, near, ours, size
from timing import Case, Contender
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from normscan import ops

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
LENGTH = 4096
BOUNDS = {"tf32": (5e-3, 1e-2), "float16": (5e-3, 1e-2), "bfloat16": (2e-2, 4e-2)}
"""Forward and backward, as shares of the largest: tensor cores round probabilities, too. float32 has the table."""


class Entry(NamedTuple):
    """One case."""

    batch: int
    heads: int
    key_size: int
    value_size: int
    dtype: str
    backward: bool

    @property
    def scale(self) -> float:
        """As everybody's default."""
        return self.key_size**-0.5

    @property
    def memory(self) -> torch.dtype:
        """What lies in memory."""
        return torch.float32 if self.dtype == "tf32" else getattr(torch, self.dtype)


SHAPES = ((16, 1, 16, 128), (4, 4, 64, 64))
"""Images, heads, channels of keys and of values: attention of SAGAN's kind, and `ocad`'s."""


def cases(place: Place) -> Iterator[Case]:
    """One at a time. Without a GPU in float32 alone: there are no tensor cores."""
    dtypes = ("float32", *BOUNDS) if place.device == "cuda" else ("float32",)
    for shape in SHAPES:
        for backward in (False, True):
            for dtype in dtypes:
                yield case(place, Entry(*shape, dtype, backward))


def case(place: Place, entry: Entry) -> Case:
    """Forwards, or the gradients from what a forward pass left behind."""
    (length,) = place.shape(LENGTH)
    widths = (entry.key_size, entry.key_size, entry.value_size, entry.value_size)
    shapes = [(entry.batch, entry.heads, length, width) for width in widths]
    *inputs, gradient = (t.to(entry.memory) for t in place.normal(0, *shapes))
    check = checked(entry, inputs, gradient)
    build = backward_case if entry.backward else forward_case
    contenders, moved, width = build(place, entry, inputs, gradient, check)
    name = f"{entry.batch} x {entry.heads} heads x L {length}, {entry.key_size}/{entry.value_size}"
    return Case(
        op="attention",
        name=name + " backward" * entry.backward,
        ours=contenders[:2],
        peers=contenders[2:],
        moved=moved,
        flops=2 * entry.batch * entry.heads * length**2 * width,
        goals={"best": 1},
        dtype=entry.dtype,
        device=place.device,
    )


def checked(entry: Entry, inputs: list[Tensor], gradient: Tensor) -> Check:
    """The formula that holds the L x L matrix, in float64, image by image."""
    formula = partial(plain, scale=entry.scale)

    def truth(*image: Tensor) -> Any:
        return gradients(formula, image[:3], image[3])() if entry.backward else formula(*image[:3])

    images = [in_float64(truth, [t[i : i + 1] for t in (*inputs, gradient)]) for i in range(entry.batch)]
    expected = [torch.cat(parts) for parts in (zip(*images, strict=True) if entry.backward else [images])]
    if entry.dtype == "float32":
        return equals("attention_backward" if entry.backward else "attention", *expected)
    return near(BOUNDS[entry.dtype][entry.backward], *expected)


def gradients(formula: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor) -> Callable[[], Any]:
    """The gradients of all inputs, from a graph that the first call builds."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = cache(lambda: formula(*leaves))
    return lambda: torch.autograd.grad(out(), leaves, gradient, retain_graph=True)


def native_options(entry: Entry) -> dict[str, Any]:
    """Of the native calls; the op takes torch's own switch for tf32, which the clock has set for the case."""
    return {"scale": entry.scale} | ({"allow_tf32": True} if entry.dtype == "tf32" else {})


def peers_of(entry: Entry, inputs: list[Tensor]) -> Iterator[tuple[str, Callable[..., Tensor], list[Tensor]]]:
    """Every form of torch's: name, function, inputs."""
    padding = entry.value_size - entry.key_size
    for name, backend in BACKENDS.items():
        yield name, partial(fused, scale=entry.scale, backend=backend), inputs
    if padding > 0:
        wide = [F.pad(inputs[0], (0, padding)), F.pad(inputs[1], (0, padding)), inputs[2]]
        for name, backend in BACKENDS.items():
            if name != "math":
                yield f"{name}_padded", partial(fused, scale=entry.scale, backend=backend), wide
    yield "eager", partial(plain, scale=entry.scale), inputs


Built = tuple[list[Contender], int, int]


def forward_case(place: Place, entry: Entry, inputs: list[Tensor], gradient: Tensor, check: Check) -> Built:
    """Contenders (two of ours first), bytes, channels of all products over the scores together."""
    out, lse = *place.outputs(gradient.shape, dtype=entry.memory), *place.outputs(gradient.shape[:3])
    native = ours("attention", inputs, [out, lse], lambda found: check(found[0]), **native_options(entry))
    op = Contender("op", lambda: ops.attention(*inputs), check)
    peers = [Contender(name, partial(run, *given), check) for name, run, given in peers_of(entry, inputs)]
    if not place.quick:
        function = torch.compile(partial(plain, scale=entry.scale), fullgraph=True, dynamic=False)
        peers.append(Contender("compile", lambda: function(*inputs), check))
    return [native, op, *peers], size(inputs, out), entry.key_size + entry.value_size


def backward_case(place: Place, entry: Entry, inputs: list[Tensor], gradient: Tensor, check: Check) -> Built:
    """Five products: the scores again, the gradients of probabilities and values, and those of queries and keys."""
    out, lse = *place.outputs(gradient.shape, dtype=entry.memory), *place.outputs(gradient.shape[:3])
    grads = [torch.full_like(t, torch.nan) for t in inputs]

    @cache
    def left_behind() -> Callable[[], None]:
        bound("attention", *inputs, out, lse, **native_options(entry))()
        given = (gradient, *inputs, out, lse, *grads)
        return bound("attention_backward", *given, **native_options(entry))

    def native() -> tuple[Tensor, ...]:
        left_behind()()
        return tuple(grads)

    def contender(name: str, run: Callable[..., Tensor], given: list[Tensor]) -> Contender:
        backward = gradients(run, given, gradient)
        return Contender(name, backward, lambda found: check(narrow(entry, found)))

    op = contender("op", ops.attention, inputs)
    peers = [contender(*peer) for peer in peers_of(entry, inputs)]
    moved = size(inputs, out, lse, gradient, grads)
    return [Contender("native", native, check), op, *peers], moved, 3 * entry.key_size + 2 * entry.value_size


def narrow(entry: Entry, grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradients without those of the zeros."""
    return (grads[0][..., : entry.key_size], grads[1][..., : entry.key_size], grads[2])
