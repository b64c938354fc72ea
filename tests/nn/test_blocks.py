"""Gate and residual block against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normscan.nn.blocks import PreactivationBlock
from normscan.nn.squeeze import SqueezeExcitation


def test_the_gate_is_the_formula() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcitation(16, 8).double()
    x = torch.randn(3, 16, 5, 4, dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach().numpy() for p in gate.parameters())
    assert (w1.shape, w2.shape) == ((2, 16), (16, 2))
    inner = np.maximum(x.numpy().mean((2, 3)) @ w1.T + b1, 0)
    factor = 1 / (1 + np.exp(-(inner @ w2.T + b2)))
    np.testing.assert_allclose(gate(x).detach(), x.numpy() * factor[:, :, None, None], rtol=1e-12)


@pytest.mark.parametrize("gate", [None, 4])
@pytest.mark.parametrize(("resample", "side"), [(None, 8), ("down", 4), ("up", 16)])
@pytest.mark.parametrize("width", [6, 12])
def test_a_block_is_its_straightforward_form(resample: str | None, side: int, width: int, gate: int | None) -> None:
    """With the shortcut's convolution on the other side of the resampling."""
    torch.manual_seed(0)
    block = PreactivationBlock(6, width, resample=resample, gate=gate).double()  # type: ignore[arg-type]
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    y, past = F.leaky_relu(x, 0.2), x
    if resample == "up":
        y, past = (t.repeat_interleave(2, 2).repeat_interleave(2, 3) for t in (y, past))
    y = block.conv2(F.leaky_relu(block.conv1(y), 0.2))
    past = block.past(past)
    if resample == "down":
        y, past = (t.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)) for t in (y, past))
    expected = block.gate(y + past)
    assert expected.shape == (2, width, side, side)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert isinstance(block.gate, SqueezeExcitation) == (gate is not None)
