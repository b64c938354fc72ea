"""Training losses over the native ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan import ops
from normscan.errors import ArgumentError

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2: fine to coarse
MS_SSIM_SIDE = 11  # of the coarsest scale: the window fits once
_LEAST_SIMILARITY = 1e-6  # below, a fractional power has no useful gradient, and of a negative number no value


def reconstruction_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """MAE + 1 - SSIM, both [N,C,H,W] in 0..1  ->  scalar (OCAD's reconstruction loss)."""
    absolute = ops.distance_map(reconstruction, image, metric="l1")
    structural = ops.distance_map(reconstruction, image, metric="ssim")
    loss: Tensor = absolute.mean() + structural.mean()
    return loss


def _scales(height: int, width: int) -> int:
    """How many scales keep the shorter side at `MS_SSIM_SIDE` or more: five from 161 pixels on."""
    side, scales = min(height, width), 0
    while side >= MS_SSIM_SIDE and scales < len(MS_SSIM_WEIGHTS):
        side, scales = (side + 1) // 2, scales + 1
    if scales == 0:
        raise ArgumentError(f"image is {height} x {width} pixels, expected at least {MS_SSIM_SIDE} on each side")
    return scales


def ms_ssim_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """1 - multi-scale SSIM (Wang et al. 2003, eq. 7), both [N,C,H,W] in 0..1  ->  scalar.

    Contrast and structure count at every scale, luminance at the coarsest; each is a mean over positions, the product
    over scales is taken for every image and channel. Small pictures have fewer scales, whose weights sum to 1 again.
    """
    scales = _scales(*image.shape[-2:])
    total = sum(MS_SSIM_WEIGHTS[:scales])
    x, y = (t.reshape(-1, 1, *t.shape[-2:]) for t in (reconstruction, image))
    similarity = x.new_ones(len(x))
    for scale, weight in enumerate(MS_SSIM_WEIGHTS[:scales], start=1):
        distance = ops.distance_map(x, y, metric="ssim" if scale == scales else "cs")
        part = (1.0 - distance.mean((1, 2))).clamp_min(_LEAST_SIMILARITY)
        similarity = similarity * part ** (weight / total)
        if scale < scales:
            x, y = (F.avg_pool2d(t, 2, ceil_mode=True, count_include_pad=False) for t in (x, y))
    loss: Tensor = 1.0 - similarity.mean()
    return loss


def relative_perceptual_loss(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean over images and levels of mean |f - g| / mean |g|, g = `wanted`, [N,C_l,h_l,w_l] each -> scalar.

    PIAD (arXiv 1909.05904), eq. 4; the denominator has no gradient.
    """
    levels = zip(found, wanted, strict=True)
    maps = [ops.distance_map(f.float(), g.float(), metric="relative_l1") for f, g in levels]
    return torch.stack([m.mean() for m in maps]).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], mixture: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """Mean of (|gradient of the critic| - 1)^2 at `mixture` [N,...] -> scalar (WGAN-GP, Gulrajani et al. 2017, eq. 3).

    mixture  points between real and generated ones, `mixed` for the usual ones
    dims     what a norm runs over; default: all but the batch. Over (1,), each pixel has a norm of its own (SinGAN)
    """
    mixture = mixture.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(mixture).sum(), mixture, create_graph=True)
    squares = gradient.float().square().sum(tuple(range(1, gradient.dim())) if dims is None else tuple(dims))
    # A norm of exactly 0 has no gradient.
    penalty: Tensor = ((squares + 1e-16).sqrt() - 1.0).square().mean()
    return penalty


def mixed(real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """A point on the line between each pair, uniformly drawn; both [N,...]."""
    share = torch.rand((len(real), *(1,) * (real.dim() - 1)), generator=generator).to(real)
    return torch.lerp(fake, real, share)


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
        loss: Tensor = ops.gaussian(z, self.mean, 1.0 / self.scale, output="nll").mean() / z.shape[1]
        return loss
