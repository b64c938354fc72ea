"""How learning rates fall."""

from __future__ import annotations

import pytest
import torch

from normscan.nn.rates import set_rate


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("none", [0.5] * 6),
        ("cosine", [0.5, 0.4267766953, 0.25, 0.0732233047, 0.0, 0.0]),
        ("linear_half", [0.5, 0.5, 0.5, 0.25, 0.0, 0.0]),
    ],
)
def test_the_rate_follows_the_progress(decay: str, rates: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 9.0)
    for progress, expected in zip((0.0, 0.25, 0.5, 0.75, 1.0, 1.5), rates, strict=True):
        set_rate(optimizer, 0.5, decay, progress)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
