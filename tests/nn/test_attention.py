"""Self-attention over positions, against torch's own module."""

from __future__ import annotations

import torch
from torch import nn

from normscan.nn.attention import SelfAttention


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
