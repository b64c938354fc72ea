"""Self-attention over positions, against torch's own module."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normscan.nn.attention import SelfAttention, SpatialAttention


def test_equals_torch_multihead_attention() -> None:
    torch.manual_seed(0)
    ours = SelfAttention(12, heads=3, key_size=4).eval()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project_in.weight,
            "in_proj_bias": ours.project_in.bias,
            "out_proj.weight": ours.project_out.weight,
            "out_proj.bias": ours.project_out.bias,
        }
    )
    x = torch.randn(2, 12, 5, 7)
    tokens = x.flatten(2).transpose(1, 2)
    attended, _ = theirs(tokens, tokens, tokens, need_weights=False)
    expected = ours.norm(tokens + attended).transpose(1, 2).reshape_as(x)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_every_position_sees_every_other() -> None:
    torch.manual_seed(0)
    module = SelfAttention(4, heads=2, key_size=3)
    x = torch.randn(1, 4, 6, 6, requires_grad=True)
    module(x)[0, :, 0, 0].square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_spatial_attention_is_the_formula(layout: torch.memory_format) -> None:
    """With the table of relative positions spread out to a bias for every pair."""
    torch.manual_seed(0)
    height, width, heads = 3, 4, 2
    module = SpatialAttention(6, heads, (height, width))
    torch.nn.init.normal_(module.bias)
    torch.nn.init.constant_(module.gamma, 0.7)
    x = torch.randn(2, 6, height, width).to(memory_format=layout)
    q, k, v = module.project(x).flatten(2).chunk(3, 1)
    q, k, v = (t.unflatten(1, (heads, 3)).transpose(2, 3) for t in (q, k, v))
    rows, cols = (t.flatten() for t in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    bias = module.bias[:, height - 1 + rows[:, None] - rows, width - 1 + cols[:, None] - cols]
    weights = (q @ k.transpose(2, 3) / 3**0.5 + bias).softmax(-1)
    expected = x + 0.7 * (weights @ v).transpose(2, 3).reshape(x.shape)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_spatial_attention_begins_as_nothing_and_can_learn() -> None:
    torch.manual_seed(0)
    module = SpatialAttention(4, 2, (5, 5))
    x = torch.randn(2, 4, 5, 5)
    found = module(x)
    torch.testing.assert_close(found, x, rtol=0, atol=0)
    (found * torch.randn_like(x)).sum().backward()
    assert module.gamma.grad is not None
    assert float(module.gamma.grad.abs()) > 0
