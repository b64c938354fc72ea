"""Residual blocks of generators and critics."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from normscan.nn.squeeze import SqueezeExcitation

SLOPE = 0.2
"""Of every LeakyReLU here."""


class PreactivationBlock(nn.Module):
    """LeakyReLU, conv3, LeakyReLU, conv3, and the way past them; no norm (He et al. 2016, arXiv 1603.05027).

    resample  "down": mean over 2x2 at the end; "up": nearest, twice the side, at the beginning
    gate      the reduction of a squeeze-and-excitation gate on the sum; None: no gate
    """

    def __init__(
        self, channels: int, width: int, *, resample: Literal["down", "up"] | None = None, gate: int | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.past = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, bias=False)
        self.gate = nn.Identity() if gate is None else SqueezeExcitation(width, gate)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,width,H',W'], H' being H, H / 2 or 2 H."""
        y = F.leaky_relu(x, SLOPE)
        if self.resample == "up":
            y = F.interpolate(y, scale_factor=2.0)
        y = self.conv2(F.leaky_relu(self.conv1(y), SLOPE))
        # A 1x1 convolution commutes with both kinds of resampling and is cheaper at the smaller size.
        if self.resample == "down":
            y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
        past = self.past(x)
        if self.resample == "up":
            past = F.interpolate(past, scale_factor=2.0)
        out: Tensor = self.gate(past + y)
        return out
