"""The torch face of the ops: custom ops that autograd, torch.compile and the exporter can use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normscan import ops
from normscan.errors import ArgumentError
from normscan.ops.autograd import translation_table
from normscan.ops.autograd.attention import attention_forward
from normscan.ops.autograd.distance import distance_map
from normscan.ops.autograd.gaussian import gaussian, gaussian_positions

METRICS = ["l1", "l2", "cosine", "relative_l1", "ssim", "cs"]


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def lower(size: int) -> torch.Tensor:
    return (randn(size, size, seed=2).detach().tril() + 2 * torch.eye(size, dtype=torch.float64)).requires_grad_()


SQUARED = ("squared_distance", 1.0)
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gaussian full": (gaussian, (randn(5, 3), randn(3, seed=1), lower(3), *SQUARED)),
    "gaussian diagonal": (gaussian, (randn(2, 3, 4, 5), randn(3, seed=1), randn(3, seed=2), *SQUARED)),
    "gaussian isotropic": (gaussian, (randn(5, 3), randn(3, seed=1), randn(1, seed=2), *SQUARED)),
    **{
        f"gaussian {form} {output}": (gaussian, (randn(5, 3), randn(3, seed=1), whitener, output, 2.5))
        for form, whitener in (("full", lower(3)), ("diagonal", randn(3, seed=2)), ("isotropic", randn(1, seed=2)))
        for output in ("saturated", "nll")
    },
    **{f"distance {m}": (distance_map, (randn(2, 3, 7, 6), randn(2, 3, 7, 6, seed=1), m, 5)) for m in METRICS},
    "attention": (attention_forward, (randn(2, 2, 5, 3), randn(2, 2, 7, 3, seed=1), randn(2, 2, 7, 4, seed=2), 0.6)),
    "attention bias": (
        attention_forward,
        (*(randn(2, 2, 6, size, seed=i) for i, size in enumerate((3, 3, 4))), 0.6, randn(2, 3, 5, seed=3), (2, 3)),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_opcheck(name: str) -> None:
    op, args = CASES[name]
    torch.library.opcheck(op, args, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


@every_case
def test_gradcheck(name: str) -> None:
    op, args = CASES[name]
    if (
        name == "distance relative_l1"
    ):  # its denominator is a constant to the gradient, which a difference quotient sees
        args = (args[0], args[1].detach(), *args[2:])
    if name == "attention":
        assert torch.autograd.gradcheck(lambda q, k, v: ops.attention(q, k, v, scale=0.6), args[:3])
        return
    if name == "attention bias":
        *inputs, scale, bias, grid = args
        assert torch.autograd.gradcheck(
            lambda q, k, v, b: ops.attention(q, k, v, scale=scale, bias=b, grid=grid), (*inputs, bias)
        )
        return
    if name.startswith("gaussian full"):  # the upper triangle is not read
        assert torch.autograd.gradcheck(lambda z, m, w: op(z, m, w.tril(), *args[3:]), args[:3])
        return
    assert torch.autograd.gradcheck(op, args)


POSITIONS = (randn(2, 3, 4, 5), randn(3, 4, 5, seed=1), randn(4, 5, 6, seed=2))


def test_opcheck_without_a_backward() -> None:
    torch.library.opcheck(
        gaussian_positions, (*(x.detach() for x in POSITIONS), *SQUARED), test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize(("index", "name"), list(enumerate(("z", "mean", "whitener"))))
def test_no_backward_is_said_at_the_call(index: int, name: str) -> None:
    args = [x.detach().requires_grad_(i == index) for i, x in enumerate(POSITIONS)]
    with pytest.raises(ArgumentError, match=rf"gaussian_positions: {name} requires a gradient.*no backward"):
        ops.gaussian_positions(*args)
    with torch.no_grad():
        assert ops.gaussian_positions(*args).shape == (2, 4, 5)


def float32(*shape: int, seed: int = 0) -> torch.Tensor:
    return randn(*shape, dtype=torch.float32, seed=seed).detach()


AUTOCAST: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "gaussian": (ops.gaussian, (float32(2, 3, 4, 5), float32(3, seed=1), float32(3, seed=2))),
    "gaussian_mixture": (ops.gaussian_mixture, tuple(float32(*s) for s in ((5, 3), (2, 3), (2, 3), (2,)))),
    "gaussian_positions": (ops.gaussian_positions, tuple(float32(*s) for s in ((2, 3, 4, 5), (3, 4, 5), (4, 5, 6)))),
    "distance_map": (
        lambda a, b: ops.distance_map(a, b, metric="cosine"),
        (float32(2, 3, 7, 6), float32(2, 3, 7, 6, seed=1)),
    ),
    "distance": (
        lambda a, b: ops.distance([(a, b)], metric="l2", size=(9, 9), blur=1.0)[0],
        (float32(2, 3, 7, 6), float32(2, 3, 7, 6, seed=1)),
    ),
}


@pytest.mark.parametrize("name", AUTOCAST)
def test_autocast_computes_in_float32(name: str) -> None:
    """A network before the op gives 16 bits; the op takes them for what they are, and rounds nothing itself."""
    op, tensors = AUTOCAST[name]
    rounded = [tensors[0].bfloat16(), *tensors[1:]]
    with torch.autocast("cpu", torch.bfloat16):
        found = op(*rounded)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, op(*(t.float() for t in rounded)), rtol=0, atol=0)


def test_autocast_gradients_have_the_dtype_of_their_tensor() -> None:
    z, mean, whitener = float32(5, 3).bfloat16().requires_grad_(), randn(3).float(), randn(3, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        ops.gaussian(z, mean, whitener).sum().backward()
    assert z.grad is not None
    assert z.grad.dtype == torch.bfloat16
    expected = 2 * whitener.square() * (z.float() - mean)
    torch.testing.assert_close(z.grad.float(), expected, rtol=2**-8, atol=0)


def test_autocast_leaves_float64() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.gaussian(randn(5, 3), randn(3), randn(3)).dtype == torch.float64


def test_double_backward_raises() -> None:
    z, mean, whitener = CASES["gaussian full"][1][:3]
    (first,) = torch.autograd.grad(ops.gaussian(z, mean, whitener).sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match=r"does not require grad|no autograd"):
        torch.autograd.grad(first.sum(), z)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (ops.attention, [(1, 2, 5, 3)] * 3),
        (lambda q, k, v, b: ops.attention(q, k, v, bias=b, grid=(2, 3)), [(1, 2, 6, 3)] * 3 + [(2, 3, 5)]),
        (lambda a, b: ops.distance_map(a, b, metric="ssim"), [(2, 3, 12, 9)] * 2),
        (ops.gaussian, [(6, 3), (3,), (3, 3)]),
        (lambda *xs: ops.gaussian(*xs, output="nll"), [(6, 3), (3,), (3, 3)]),
        (ops.gaussian_positions, [(6, 3, 2, 5), (3, 2, 5), (2, 5, 3, 3)]),
        (
            lambda *xs: ops.gaussian_positions(*xs, output="saturated", saturation=2.5),
            [(6, 3, 2, 5), (3, 2, 5), (2, 5, 3, 3)],
        ),
    ],
    ids=["attention", "attention bias", "distance", "gaussian", "gaussian nll", "gaussian_positions", "saturated"],
)
def test_numpy_equals_torch(function: Callable[..., Any], shapes: list[tuple[int, ...]]) -> None:
    arrays = [randn(*shape, seed=i).detach().float() for i, shape in enumerate(shapes)]
    found = function(*(a.numpy() for a in arrays))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, function(*arrays).numpy())


def test_attention_equals_torch() -> None:
    q, k, v = (randn(2, 4, 33, 8, dtype=torch.float32, seed=i) for i in range(3))
    torch.testing.assert_close(ops.attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


class Biased(torch.nn.Module):
    """Attention over a grid of 3 x 5 with a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(randn(4, 5, 9, dtype=torch.float32, seed=3).detach())

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ops.attention(q, k, v, bias=self.bias, grid=(3, 5))


def test_attention_bias_in_onnx_equals_torch() -> None:
    """At opset 18, with another batch than it was exported with."""
    runtime = pytest.importorskip("onnxruntime")
    network = Biased().eval()
    q, k, v = (randn(3, 4, 15, size, dtype=torch.float32, seed=size).detach() for size in (7, 8, 6))
    k = k[..., :7].contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (q[:2], k[:2], v[:2]),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=64)},) * 3,
            opset_version=18,
            custom_translation_table=translation_table(18),
            verbose=False,
        )
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = dict(zip((i.name for i in session.get_inputs()), (q.numpy(), k.numpy(), v.numpy()), strict=True))
    (found,) = session.run(None, feed)
    np.testing.assert_allclose(found, network(q, k, v).detach(), rtol=1e-5, atol=1e-6)


def test_attention_bias_compiles_without_a_break() -> None:
    def loss(q: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return ops.attention(q, q, q, bias=bias, grid=(2, 3)).square().mean()

    q, bias = randn(2, 2, 6, 4, dtype=torch.float32), randn(2, 3, 5, dtype=torch.float32, seed=1)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(q, bias), (q, bias))
    torch.testing.assert_close(found, torch.autograd.grad(loss(q, bias), (q, bias)))


def test_strided_and_permuted_tensors() -> None:
    q = randn(2, 9, 4, 6, dtype=torch.float32).detach()
    torch.testing.assert_close(
        ops.attention(*[q.transpose(1, 2)] * 3), ops.attention(*[q.transpose(1, 2).contiguous()] * 3)
    )
    x = randn(2, 3, 8, 8, dtype=torch.float32).detach().to(memory_format=torch.channels_last)
    y = x.flip(2)
    torch.testing.assert_close(
        ops.distance_map(x, y, metric="l1"), ops.distance_map(x.contiguous(), y.contiguous(), metric="l1")
    )
    mean, whitener = randn(3, seed=1).detach().float(), lower(3).detach().float()
    torch.testing.assert_close(ops.gaussian(x, mean, whitener), ops.gaussian(x.contiguous(), mean, whitener))
    mixture = (mean[None], whitener[None], torch.zeros(1))
    torch.testing.assert_close(ops.gaussian_mixture(x, *mixture), ops.gaussian_mixture(x.contiguous(), *mixture))


def test_mixed_kinds_are_refused() -> None:
    with pytest.raises(ArgumentError, match="all of one kind"):
        ops.gaussian(np.zeros((2, 3), np.float32), torch.zeros(3), torch.ones(3))
    with pytest.raises(ArgumentError, match="float32 or float64"):
        ops.gaussian(np.zeros((2, 3), np.int32), np.zeros(3), np.ones(3))


def test_a_tensor_elsewhere_is_refused() -> None:
    meta = torch.zeros(2, 3, device="meta")
    found = ops.gaussian(meta, meta[0], meta[0])  # the fake kernel: shapes only
    assert found.device.type == "meta"
    assert found.shape == (2,)


def test_compiles_without_a_break() -> None:
    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return ops.distance_map(a * 2, b, metric="ssim").mean() + ops.distance_map(a, b, metric="l1").mean()

    a, b = randn(1, 3, 12, 12, dtype=torch.float32), randn(1, 3, 12, 12, dtype=torch.float32, seed=1)
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(a, b), loss(a, b))
