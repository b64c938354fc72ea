"""Attention with SAGAN's gate at its end: out = residual + gamma * attention, forward, backward, compiled, exported."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native, ops
from normscan.errors import ArgumentError
from normscan.ops.autograd import translation_table
from normscan.ops.autograd.attention import attention_gated
from reference import attention as reference
from tolerances import assert_close

GAMMA = 0.7


def inputs(n: int, h: int, queries: int, keys: int, dk: int, dv: int, dtype: str) -> list[Array]:
    """q, k, v, residual, and the gradient of the output."""
    shapes = ((n, h, queries, dk), (n, h, keys, dk), (n, h, keys, dv), (n, h, queries, dv), (n, h, queries, dv))
    return [normal(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]


def run(arrays: list[Array], gamma: float) -> tuple[Array, ...]:
    """out, attended, and the gradients of q, k, v and gamma."""
    q, k, v, residual, grad_out = arrays
    factor = np.array([gamma], q.dtype)
    out, attended, lse = (unwritten(*shape, dtype=q.dtype) for shape in (*[residual.shape] * 2, q.shape[:3]))
    _native.attention(q, k, v, out, lse, None, residual, factor, attended, scale=0.3)
    grads = [unwritten(*x.shape, dtype=q.dtype) for x in (q, k, v, factor)]
    options = {"gamma": factor, "grad_gamma": grads[3], "scale": 0.3}
    _native.attention_backward(grad_out, q, k, v, attended, lse, *grads[:3], **options)
    return out, attended, *grads


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.0, GAMMA])
@pytest.mark.parametrize("size", SIDES)
def test_equals_the_reference(size: int, gamma: float, dtype: str) -> None:
    q, k, v, residual, grad_out = arrays = inputs(2, 3, size, size + 3, 7, 5, dtype)
    out, attended, *grads = run(arrays, gamma)
    alone, _ = reference.attention(q, k, v, scale=0.3)
    assert_close(attended, alone, "attention")
    assert_close(out, residual + gamma * alone, "attention")
    expected = reference.attention_backward(gamma * grad_out.astype(np.float64), q, k, v, scale=0.3)
    for found, want in zip(grads[:3], expected, strict=True):
        assert_close(found, want, "attention_backward")
    products = grad_out.astype(np.float64) * alone
    assert_close(grads[3], [products.sum()], "attention_backward", np.abs(products).sum())


def test_an_empty_batch() -> None:
    out, *_, grad_gamma = run(inputs(0, 2, 5, 7, 3, 4, "float32"), GAMMA)
    assert out.shape == (0, 2, 5, 4)
    np.testing.assert_array_equal(grad_gamma, [0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str) -> None:
    arrays, place = inputs(2, 3, 70, 83, 13, 9, "float32"), LAYOUTS[layout]
    for found, want in zip(run([place(x) for x in arrays], GAMMA), run(arrays, GAMMA), strict=True):
        np.testing.assert_array_equal(found, want)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    arrays, before = inputs(2, 3, 1500, 700, 4, 5, "float32"), _native.threads()
    try:
        _native.set_threads(1)
        expected = run(arrays, GAMMA)
        for count in (2, 3):
            _native.set_threads(count)
            for found, want in zip(run(arrays, GAMMA), expected, strict=True):
                np.testing.assert_array_equal(found, want)
    finally:
        _native.set_threads(before)


def test_nan_passes_a_closed_gate() -> None:
    arrays = inputs(1, 2, 5, 7, 3, 4, "float32")
    arrays[0][0, 1, 2] = np.nan
    out = run(arrays, 0.0)[0]
    np.testing.assert_array_equal(np.isnan(out).all(-1), np.isnan(arrays[0]).any(-1))


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed), requires_grad=True)


TENSORS = tuple(randn(2, 2, n, c, seed=i) for i, (n, c) in enumerate(((6, 3), (6, 3), (6, 4), (6, 4))))
BIAS = randn(2, 3, 5, seed=5)


@pytest.mark.parametrize("gamma", [0.0, GAMMA])
def test_gradcheck(gamma: float) -> None:
    factor = torch.tensor([gamma], dtype=torch.float64, requires_grad=True)

    def gated(q: Tensor, k: Tensor, v: Tensor, residual: Tensor, gamma: Tensor, bias: Tensor) -> Tensor:
        found: Tensor = ops.attention(q, k, v, residual=residual, gamma=gamma, bias=bias, grid=(2, 3))
        return found

    assert torch.autograd.gradcheck(gated, (*TENSORS, factor, BIAS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("keep", [True, False])
def test_opcheck(keep: bool, dtype: torch.dtype) -> None:
    gamma = torch.ones(1, dtype=torch.float64 if dtype == torch.float64 else torch.float32, requires_grad=keep)
    tensors = [t.detach().to(dtype).requires_grad_(keep) for t in TENSORS]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(attention_gated, (*tensors, gamma, 0.6, keep), test_utils=tests)


def test_a_call_that_kept_nothing_has_no_backward() -> None:
    out = attention_gated(*TENSORS, torch.ones(1, dtype=torch.float64), 0.6, False)[0]
    with pytest.raises(ArgumentError, match=r"attention_backward: out has shape \[0\], expected \[N,H,L,dv\]"):
        out.sum().backward()


class Gated(nn.Module):
    """SAGAN's block: 1 x 1 convolutions to queries and keys of C/8 and values of C, over the positions of a map."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.tensor([GAMMA]))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, residual = (t.flatten(2).mT[:, None] for t in (self.query(x), self.key(x), self.value(x), x))
        found: Tensor = ops.attention(q, k, v, scale=1.0, residual=residual, gamma=self.gamma)
        return found[:, 0].mT.unflatten(2, x.shape[2:])

    def in_steps(self, x: Tensor) -> Tensor:
        """The same as torch writes it."""
        q, k, v = (f(x).flatten(2) for f in (self.query, self.key, self.value))
        return x + self.gamma * (v @ (q.mT @ k).softmax(-1).mT).unflatten(2, x.shape[2:])


def network_and_map() -> tuple[Gated, Tensor]:
    torch.manual_seed(0)
    return Gated(), torch.randn(2, 16, 7, 9, requires_grad=True)


def test_a_block_over_a_map_equals_torch_without_a_copy() -> None:
    network, x = network_and_map()
    weights = tuple(network.parameters())
    found, expected = network(x), network.in_steps(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, (x, *weights), upstream),
        torch.autograd.grad(expected, (x, *weights), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_compiles_without_a_break() -> None:
    network, x = network_and_map()
    found = torch.compile(network, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(found, network(x))
    torch.testing.assert_close(
        torch.autograd.grad(found.square().mean(), x), torch.autograd.grad(network(x).square().mean(), x)
    )


def test_in_onnx_equals_torch() -> None:
    """At opset 18, with another batch than it was exported with; no op but those that every engine knows."""
    runtime = pytest.importorskip("onnxruntime")
    network = Gated().eval()
    x = randn(3, 16, 7, 9, dtype=torch.float32).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (x[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},),
            opset_version=18,
            custom_translation_table=translation_table(18),
            verbose=False,
        )
    assert program is not None
    assert {node.domain for node in program.model_proto.graph.node} == {""}
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, network(x).detach(), rtol=1e-5, atol=1e-5)


def test_autocast_takes_its_dtype() -> None:
    """As torch's own attention under autocast; bias and gamma stay float32, and so do the gradients of weights."""
    network, x = network_and_map()
    with torch.autocast("cpu", torch.bfloat16):
        found = network(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), network(x), rtol=0.05, atol=0.05)
    found.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.attention(*(t.float() for t in TENSORS[:3])).dtype == torch.bfloat16
        assert ops.attention(*TENSORS[:3]).dtype == torch.float64


def test_a_network_in_half_precision() -> None:
    """`network.bfloat16()` makes gamma bfloat16, too."""
    network, x = network_and_map()
    expected = network(x)
    found = network.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    found.float().sum().backward()
    assert network.gamma.grad is not None
    assert network.gamma.grad.dtype == torch.bfloat16


def test_numpy_equals_torch() -> None:
    q, k, v, residual, _ = inputs(1, 2, 9, 11, 4, 3, "float32")
    gamma = np.array([GAMMA], np.float32)
    found = ops.attention(q, k, v, residual=residual, gamma=gamma)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    expected = ops.attention(*tensors, residual=torch.from_numpy(residual), gamma=torch.from_numpy(gamma))
    np.testing.assert_array_equal(found, expected.numpy())


def test_residual_and_gamma_go_together() -> None:
    q, k, v, residual, _ = inputs(1, 2, 5, 5, 4, 3, "float32")
    gamma, out, lse = np.ones(1, np.float32), unwritten(1, 2, 5, 3), unwritten(1, 2, 5)
    for function in (ops.attention, lambda *a, **b: _native.attention(*a, out, lse, scale=1.0, **b)):
        with pytest.raises(ArgumentError, match="attention: residual is given without gamma; expected both"):
            function(q, k, v, residual=residual)
        with pytest.raises(ArgumentError, match="attention: gamma is given without residual; expected both"):
            function(q, k, v, gamma=gamma)
    with pytest.raises(ArgumentError, match="attention: attended is given without residual"):
        _native.attention(q, k, v, out, lse, attended=out.copy(), scale=1.0)
    with pytest.raises(ArgumentError, match="attention_backward: gamma is given without grad_gamma"):
        _native.attention_backward(out, q, k, v, out, lse, q, k, v, gamma=gamma, scale=1.0)
