"""Training losses over the native ops."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan import ops


def reconstruction_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """MAE + 1 - SSIM, both [N,C,H,W] in 0..1  ->  scalar (OCAD's reconstruction loss)."""
    absolute = ops.distance_map(reconstruction, image, metric="l1")
    structural = ops.distance_map(reconstruction, image, metric="ssim")
    loss: Tensor = absolute.mean() + structural.mean()
    return loss


class GaussianDescriptor(nn.Module):
    """A learned diagonal Gaussian over latent channels: the negative log-likelihood of z, per position and channel.

    The source's loss has no log term, so that an infinite scale minimises it; with the log term alone an encoder and a
    scale that shrink together would be unbounded below. Hence the likelihood, and a scale of at least 1 (as IGD's s).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.raw_scale = nn.Parameter(torch.full((channels,), math.log(math.expm1(0.1))))

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each channel [C], >= 1."""
        return 1.0 + F.softplus(self.raw_scale)

    def forward(self, z: Tensor) -> Tensor:
        """z [N,C,H,W] -> scalar, in nats per position and channel."""
        scale = self.scale
        squared = ops.gaussian(z, self.mean, 1.0 / scale)
        loss: Tensor = 0.5 * squared.mean() / z.shape[1] + scale.log().mean() + 0.5 * math.log(2.0 * math.pi)
        return loss
