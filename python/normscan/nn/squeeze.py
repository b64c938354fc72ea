"""The squeeze-and-excitation gate (Hu et al., CVPR 2018, arXiv 1709.01507)."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """x [N,C,H,W] -> x times a factor in 0..1 for each channel: sigmoid(W2 ReLU(W1 mean_p x)), W1 to C/`reduction`."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels."""
        gated: Tensor = x * self.gate(x.mean((2, 3)))[:, :, None, None]
        return gated
