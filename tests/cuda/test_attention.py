"""Attention on the GPU against float64: multiply-adds, and tensor cores with tf32, float16 and bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, Array, normal
from normscan import ops
from normscan.errors import ArgumentError
from reference import attention as reference
from tolerances import assert_close

MODES = ("float32", "float64", "tf32", "float16", "bfloat16")
every_mode = pytest.mark.parametrize("mode", MODES)
GAMMA = 0.7


def dtype_of(mode: str) -> torch.dtype:
    return getattr(torch, "float32" if mode == "tf32" else mode)


def inputs(n: int, h: int, queries: int, keys: int, dk: int, dv: int, mode: str = "float32") -> list[torch.Tensor]:
    """q, k, v, the gradient of the output, and the residual."""
    shapes = ((n, h, queries, dk), (n, h, keys, dk), (n, h, keys, dv), (n, h, queries, dv), (n, h, queries, dv))
    return [torch.from_numpy(normal(*s, seed=i)).to(dtype_of(mode)) for i, s in enumerate(shapes)]


def table(heads: int, grid: tuple[int, int], mode: str = "float32") -> torch.Tensor:
    shape = (heads, 2 * grid[0] - 1, 2 * grid[1] - 1)
    return torch.from_numpy(normal(*shape, dtype="float64" if mode == "float64" else "float32", seed=5))


class Run:
    """Both passes over memory of the GPU, with bias and gate where they are given."""

    def __init__(
        self,
        gpu: Any,
        tensors: list[torch.Tensor],
        mode: str,
        scale: float,
        bias: torch.Tensor | None = None,
        grid: tuple[int, int] | None = None,
        gated: bool = False,
    ) -> None:
        q, k, v, grad_out, residual = (self.put(gpu, t) for t in tensors)
        sums = torch.float64 if mode == "float64" else torch.float32
        options: dict[str, Any] = {"scale": scale, "grid": grid, "allow_tf32": mode == "tf32"}
        if bias is not None:
            options["bias"] = self.put(gpu, bias)
        gate = {"gamma": self.put(gpu, torch.tensor([GAMMA], dtype=sums))} if gated else {}
        self.out = torch.full_like(grad_out, torch.nan)
        self.lse = torch.full(grad_out.shape[:3], torch.nan, dtype=sums, device=grad_out.device)
        self.attended = torch.full_like(self.out, torch.nan) if gated else self.out
        more = {"residual": residual, "attended": self.attended} if gated else {}
        gpu.call("attention", q, k, v, self.out, self.lse, **options, **gate, **more)

        self.grads = [torch.full_like(t, torch.nan) for t in (q, k, v)]
        extra = {
            f"grad_{n}": torch.full_like(t, torch.nan)
            for n, t in {**gate, "bias": options.get("bias")}.items()
            if t is not None
        }
        saved = (q, k, v, self.attended, self.lse)
        gpu.call("attention_backward", grad_out, *saved, *self.grads, **options, **gate, **extra)
        self.grad_bias, self.grad_gamma = extra.get("grad_bias"), extra.get("grad_gamma")

    @staticmethod
    def put(gpu: Any, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where the GPU's memory is, with its strides."""
        if gpu.emulated:
            return tensor
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda").copy_(tensor)


def array(t: torch.Tensor) -> Array:
    return t.cpu().float().numpy() if t.dtype in (torch.bfloat16, torch.float16) else t.cpu().numpy()


def check(gpu: Any, tensors: list[torch.Tensor], mode: str, scale: float, **more: Any) -> None:
    """Both passes against the reference of the very same numbers."""
    run = Run(gpu, tensors, mode, scale, **more)
    gamma = GAMMA if more.pop("gated", False) else None
    if "bias" in more:
        more["bias"] = more["bias"].numpy()
    q, k, v, grad_out, residual = (t.double().numpy() for t in tensors)
    alone, lse = reference.attention(q, k, v, scale=scale, **more)
    op, dtype = ("attention", mode) if mode in ("float32", "float64") else ("attention_tensor_cores", mode)
    assert_close(array(run.attended), alone, op, dtype=dtype)
    assert_close(array(run.out), alone if gamma is None else residual + gamma * alone, op, dtype=dtype)
    assert_close(array(run.lse), lse, op if mode == "tf32" else "attention", dtype="tf32" if mode == "tf32" else None)
    upstream = grad_out if gamma is None else gamma * grad_out
    expected = reference.attention_backward(upstream, q, k, v, scale=scale, **more)
    score = np.abs(upstream).sum(-1).max(initial=0) * np.abs(v).max(initial=0)
    sizes = [*(scale * score * np.abs(x).max(initial=0) for x in (k, q)), None, score]
    found = [*run.grads, *([] if run.grad_bias is None else [run.grad_bias])]
    op += "_backward"
    for one, want, size in zip(found, expected, sizes, strict=False):
        assert_close(array(one), want, op, size, dtype=dtype)
    if run.grad_gamma is not None:
        products = grad_out * alone
        assert_close(array(run.grad_gamma), [products.sum()], op, np.abs(products).sum(), dtype=dtype)


@every_mode
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (19, 1), (1, 19), (19, 111), (111, 19)])
def test_lengths(gpu, queries, keys, mode):
    check(gpu, inputs(1, 1, queries, keys, 16, 16, mode), mode, 0.25)


def test_many_tiles(gpu):
    check(gpu, inputs(1, 1, 150, 290, 8, 8), "float32", 0.35)


@pytest.mark.parametrize("mode", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("dk", "dv"), [(1, 1), (19, 7), (7, 130), (111, 19), (300, 5)])
def test_head_sizes(gpu, dk, dv, mode):
    """Narrow, odd, and more columns than a block has or than its shared memory holds."""
    check(gpu, inputs(1, 1, 5, 7, dk, dv, mode), mode, dk**-0.5)


@every_mode
def test_more_heads_than_one_and_two_blocks_of_rows_a_warp(gpu, mode):
    """With many blocks a warp takes 32 queries instead of 16."""
    check(gpu, inputs(2, 2, 17, 5, 5, 4, mode), mode, 0.4)


def test_sixteen_and_thirty_two_queries_a_warp_give_the_same_bits(gpu):
    tensors = inputs(4, 1, 9, 17, 16, 5, "float16")
    together = Run(gpu, tensors, "float16", 0.3)
    alone = Run(gpu, [t[1:2] for t in tensors], "float16", 0.3)
    for one, all_ in zip(
        (alone.out, alone.lse, *alone.grads), (together.out, together.lse, *together.grads), strict=True
    ):
        assert torch.equal(one, all_[1:2])


@every_mode
@pytest.mark.parametrize("grid", [(1, 1), (8, 9)])
def test_bias(gpu, grid, mode):
    positions, images = grid[0] * grid[1], 1 if mode in MODES[2:] else 2
    check(gpu, inputs(images, 1, positions, positions, 4, 3, mode), mode, 0.5, bias=table(1, grid, mode), grid=grid)


@pytest.mark.parametrize("grid", [(1, 19), (19, 1), (3, 37), (37, 3)])
def test_bias_on_long_grids(gpu, grid):
    positions = grid[0] * grid[1]
    check(gpu, inputs(1, 2, positions, positions, 4, 3), "float32", 0.5, bias=table(2, grid), grid=grid)


@every_mode
def test_gate(gpu, mode):
    check(gpu, inputs(2, 1, 7, 9, 4, 19, mode), mode, 0.5, gated=True)


def test_gate_and_bias(gpu):
    check(gpu, inputs(2, 2, 15, 15, 4, 3), "float32", 0.5, gated=True, bias=table(2, (3, 5)), grid=(3, 5))


@pytest.mark.parametrize("mode", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(gpu, layout, mode):
    if layout == "reversed_batch":
        pytest.skip("torch has no negative strides")
    dtype = "float16" if mode == "float16" else "float32"
    q, k, v, grad_out, residual = (t.numpy() for t in inputs(2, 2, 9, 11, 16, 8, mode))
    placed = [torch.from_numpy(LAYOUTS[layout](x.astype(dtype))) for x in (q, k, v, grad_out, residual)]
    check(gpu, placed, mode, 0.3, gated=True)


def test_one_head_as_a_map(gpu):
    """[N,C,L] seen as [N,1,L,C]: positions lie side by side, channels apart."""
    tensors = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in inputs(2, 1, 19, 23, 16, 9)]
    assert all(t.stride(2) == 1 < t.stride(3) for t in tensors)
    check(gpu, tensors, "float32", 0.3, gated=True)


def test_positions_before_heads(gpu):
    """[N,L,H,C] as a linear layer writes it, seen as [N,H,L,C]."""
    check(gpu, [t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs(2, 3, 9, 11, 8, 8)], "float32", 0.3)


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_scores_that_overflow_a_plain_exp(gpu, offset):
    """All scores of a row far from 0, the largest in the last tile: the running maximum must move and stay finite."""
    q, k, v, grad_out, residual = inputs(1, 1, 5, 150, 4, 3)
    q[..., 0], k[..., 0] = 1, offset + torch.linspace(0, 4, 150)
    run = Run(gpu, [q, k, v, grad_out, residual], "float32", 1.0)
    expected, lse = reference.attention(q, k, v, scale=1.0)
    np.testing.assert_allclose(array(run.out), expected, rtol=1e-4, atol=1e-4)  # as on the CPU: eps * 300, through exp
    np.testing.assert_allclose(array(run.lse), lse, rtol=1e-4)


@pytest.mark.parametrize("mode", ["float32", "float16"])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nan_reaches_all_that_depends_on_it(gpu, broken, mode):
    tensors = inputs(1, 2, 9, 11, 8, 8, mode)
    tensors[broken][0, 1, 5, 2] = torch.nan
    run = Run(gpu, tensors, mode, 0.35)
    expected = np.zeros(run.out.shape, bool)
    if broken == 0:
        expected[0, 1, 5] = True
    elif broken == 1:
        expected[0, 1] = True
    else:
        expected[0, 1, :, 2] = True
    np.testing.assert_array_equal(np.isnan(array(run.out)), expected)
    np.testing.assert_array_equal(np.isnan(array(run.lse)), expected.all(axis=-1))
    assert not any(np.isnan(array(g)[0, 0]).any() for g in run.grads)
    assert np.isnan(array(run.grads[0])[0, 1, 5]).any()


def test_a_bias_of_minus_infinity_hides_keys(gpu):
    """Each query sees its own row of the grid alone."""
    grid, bias = (9, 8), table(1, (9, 8))
    bias[:, np.arange(17) != 8] = -torch.inf
    q, k, v, grad_out, residual = inputs(1, 1, 72, 72, 4, 3)
    before = Run(gpu, [q, k, v, grad_out, residual], "float32", 0.5, bias=bias, grid=grid)
    expected, lse = reference.attention(q, k, v, scale=0.5, bias=bias, grid=grid)
    assert_close(array(before.out), expected, "attention")
    assert_close(array(before.lse), lse, "attention")
    v = v.clone()
    v[:, :, 8:] += 100
    after = Run(gpu, [q, k, v, grad_out, residual], "float32", 0.5, bias=bias, grid=grid)
    assert torch.equal(before.out[:, :, :8], after.out[:, :, :8])


@pytest.mark.parametrize(("n", "queries"), [(0, 5), (2, 0)])
def test_nothing_to_attend(gpu, n, queries):
    run = Run(gpu, inputs(n, 2, queries, 7, 3, 4), "float32", 0.5, gated=True)
    assert run.grad_gamma.item() == 0
    assert all((g == 0).all() for g in run.grads)


def test_no_channels(gpu):
    run = Run(gpu, inputs(1, 2, 5, 7, 0, 0), "float32", 0.5)
    np.testing.assert_allclose(array(run.lse), np.log(7), rtol=1e-6)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2), st.integers(1, 2), st.integers(1, 70), st.integers(1, 70), st.integers(1, 24), st.integers(1, 24)
)
def test_any_shape(gpu, n, h, queries, keys, dk, dv):
    check(gpu, inputs(n, h, queries, keys, dk, dv), "float32", dk**-0.5)


def call(gpu: Any, **other: Any) -> None:
    """A call with one wrong argument."""
    q, k, v, grad_out, _ = inputs(1, 2, 6, 6, 4, 3)
    arguments = {"q": q, "k": k, "v": v, "out": grad_out, "lse": grad_out[..., 0].clone(), "scale": 0.5} | other
    gpu.call("attention", **{n: Run.put(gpu, x) if isinstance(x, torch.Tensor) else x for n, x in arguments.items()})


def test_wrong_arguments(gpu):
    with pytest.raises(ArgumentError, match=r"attention: k has shape \[1,2,6,5\], expected .* = \[1,2,6,4\]"):
        call(gpu, k=torch.zeros(1, 2, 6, 5))
    with pytest.raises(ArgumentError, match="attention: lse is float16, expected float32"):
        call(gpu, lse=torch.zeros(1, 2, 6, dtype=torch.float16))
    with pytest.raises(ArgumentError, match="attention: bias is given without grid"):
        call(gpu, bias=table(2, (2, 3)))
    with pytest.raises(ArgumentError, match="attention: grid is 2 x 4, q has 6 positions and k 6"):
        call(gpu, bias=table(2, (2, 3)), grid=(2, 4))
    with pytest.raises(ArgumentError, match="attention: residual is given without gamma"):
        call(gpu, residual=torch.zeros(1, 2, 6, 3))


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (torch.zeros(1, dtype=torch.uint8), "workspace has 1 bytes, expected at least 48"),
        (torch.zeros(99), "workspace is float32, expected uint8"),
        (torch.zeros(300, dtype=torch.uint8)[1:], "workspace starts at .*, expected a multiple of 16 bytes"),
    ],
)
def test_wrong_workspace(gpu, room, message):
    q, k, v, grad_out, _ = (Run.put(gpu, t) for t in inputs(1, 2, 6, 6, 4, 3))
    lse, grads = grad_out[..., 0].clone(), [torch.empty_like(t) for t in (q, k, v)]
    with pytest.raises(ArgumentError, match=f"attention_backward: {message}"):
        gpu.ops.attention_backward(grad_out, q, k, v, grad_out, lse, *grads, scale=0.5, workspace=Run.put(gpu, room))


def on_gpu(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=dtype, generator=generator).cuda().requires_grad_()


@pytest.mark.cuda
def test_torch_op() -> None:
    """Registration, and gradients by finite differences, with everything that there is."""
    q, k, v = on_gpu(2, 2, 6, 4), on_gpu(2, 2, 6, 4, seed=1), on_gpu(2, 2, 6, 3, seed=2)
    bias, residual, gamma = on_gpu(2, 3, 5, seed=3), on_gpu(2, 2, 6, 3, seed=4), on_gpu(1, seed=5)
    torch.library.opcheck(torch.ops.normscan.attention_forward.default, (q, k, v, 0.5, bias, [2, 3]))

    def gated(*tensors: torch.Tensor) -> torch.Tensor:
        q, k, v, bias, residual, gamma = tensors
        return ops.attention(q, k, v, scale=0.5, bias=bias, grid=(2, 3), residual=residual, gamma=gamma)

    assert torch.autograd.gradcheck(gated, (q, k, v, bias, residual, gamma))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("length", "dk", "dv"), [(1936, 16, 128), (1024, 64, 64), (300, 32, 256), (4096, 64, 64)])
def test_long_sequences(length: int, dk: int, dv: int, dtype: torch.dtype) -> None:
    """Against torch in float64, at the sizes of networks: all blocks and tiles of a real grid."""
    tensors = [on_gpu(2, 2, length, size, seed=i).detach().to(dtype) for i, size in enumerate((dk, dk, dv))]
    found = [t.clone().requires_grad_() for t in tensors]
    wanted = [t.double().requires_grad_() for t in tensors]
    grad = on_gpu(2, 2, length, dv, seed=9).detach().to(dtype)
    out = ops.attention(*found)
    out.backward(grad)
    expected = torch.nn.functional.scaled_dot_product_attention(*wanted)
    expected.backward(grad.double())
    bound = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    pairs = [(out, expected), *((f.grad, w.grad) for f, w in zip(found, wanted, strict=True))]
    for one, want in pairs:
        torch.testing.assert_close(one.double(), want, rtol=bound, atol=bound * want.abs().max().item())


@pytest.mark.cuda
def test_graph_capture() -> None:
    """No allocation of its own and no synchronisation: a graph replays the call with new numbers."""
    q, k, v = (on_gpu(1, 2, 100, 16, dtype=torch.float32, seed=i).detach() for i in range(3))
    ops.attention(q, k, v)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = ops.attention(q, k, v)
    q.copy_(torch.flip(q, [2]))
    graph.replay()
    torch.testing.assert_close(out, ops.attention(q, k, v), rtol=0, atol=0)
