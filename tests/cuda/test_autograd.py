"""The custom ops over the CUDA kernels, emulated or on a GPU, against the same ops on the CPU: every op's workspace,
options and names as torch passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import normscan.ops.autograd.native as border
from normscan import ops

SIZES = {
    "gaussian": ((5, 19), (19,), (19, 19)),
    "gaussian channels_last": ((2, 20, 3, 4), (20,), (20,)),
    "gaussian_mixture": ((5, 19), (2, 19), (2, 19, 19), (2,)),
    "gaussian_positions": ((2, 3, 4, 5), (3, 4, 5), (4, 5, 6)),
    "distance_map relative_l1": ((2, 3, 7, 6), (2, 3, 7, 6)),
    "distance_map ssim": ((1, 2, 12, 11), (1, 2, 12, 11)),
    "distance": ((2, 3, 7, 6), (2, 3, 7, 6)),
    "attention": ((2, 2, 6, 4), (2, 2, 6, 4), (2, 2, 6, 3)),
    "attention with bias and gate": ((2, 2, 6, 4), (2, 2, 6, 4), (2, 2, 6, 3), (2, 3, 5), (2, 2, 6, 3), (1,)),
}
OPS: dict[str, Callable[..., Any]] = {
    "gaussian": lambda *t: ops.gaussian(*t, output="saturated", saturation=30.0),
    "gaussian channels_last": lambda z, *t: ops.gaussian(z.contiguous(memory_format=torch.channels_last), *t),
    "gaussian_mixture": ops.gaussian_mixture,
    "gaussian_positions": ops.gaussian_positions,
    "distance_map relative_l1": lambda a, b: ops.distance_map(a, b, metric="relative_l1"),
    "distance_map ssim": lambda a, b: ops.distance_map(a, b, metric="ssim", window=5),
    "distance": lambda a, b: ops.distance([(a, b)], metric="l1", size=(9, 9), blur=1.0, pool="mean")[0],
    "attention": ops.attention,
    "attention with bias and gate": lambda q, k, v, bias, residual, gamma: ops.attention(
        q, k, v, bias=bias, grid=(2, 3), residual=residual, gamma=gamma
    ),
}
WITHOUT_GRADIENT = {"gaussian_mixture", "gaussian_positions", "distance"}


def tensors_of(name: str) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in SIZES[name]]
    return [
        t.tril() if t.dim() > 1 and name in {"gaussian", "gaussian_mixture"} and i == 2 else t
        for i, t in enumerate(tensors)
    ]


def run(name: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients where there are any."""
    if name in WITHOUT_GRADIENT:
        return [OPS[name](*tensors)]
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = OPS[name](*leaves)
    out.square().sum().backward()
    return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]


@pytest.fixture
def there(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.Tensor], torch.Tensor]:
    """Puts a tensor where the kernels run. Emulated, that is the CPU's memory: from here on its ops are the kernels."""
    if not gpu.emulated:
        return lambda tensor: tensor.cuda()
    monkeypatch.setattr(border, "native", lambda tensor: gpu.ops)
    return lambda tensor: tensor


@pytest.mark.parametrize("name", OPS)
def test_equals_the_cpu(there, monkeypatch, name):
    tensors = tensors_of(name)
    with monkeypatch.context() as before:
        before.setattr(border, "native", lambda tensor: border._native)
        expected = run(name, tensors)
    found = run(name, [there(t) for t in tensors])
    assert len(found) == len(expected)
    for one, want in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


@pytest.fixture
def tf32() -> Iterator[Callable[[bool], None]]:
    """Turns torch's switch; it is back where it was after the test."""

    def turn(value: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = value

    before = torch.backends.cuda.matmul.allow_tf32
    yield turn
    turn(before)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_mixture", "attention"])
def test_torchs_switch_for_tf32(there, tf32, name):
    tensors = [there(t) for t in tensors_of(name)]
    tf32(False)
    exact = run(name, tensors)
    tf32(True)
    rounded = run(name, tensors)
    for one, other in zip(rounded, exact, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-2 * other.abs().max().item())
