"""Content and style of a picture, taken apart and put together again.

The content encoder sees what is where and, by normalising each channel of each picture, loses most of its colour. The
attribute encoder gives the rest: a style of a few numbers, given the picture's domain. The decoder puts any content
into any style.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normscan.generate.histaugan.config import HistauganConfig


class Style(NamedTuple):
    """What the attribute encoder says of a style: a Gaussian for each of its numbers."""

    mean: Tensor
    """[N,S]"""
    log_variance: Tensor
    """[N,S]"""

    def draw(self, noise: Tensor) -> Tensor:
        """A style [N,S], from standard normal noise [N,S]."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise


def instance_norm(width: int) -> nn.Module:
    """Each channel of each picture by itself: what is constant over a picture is lost."""
    return nn.InstanceNorm2d(width)


def layer_norm(width: int) -> nn.Module:
    """All channels of a picture together: what is constant over it survives, as an injected style must."""
    return nn.GroupNorm(1, width)


def conv(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Reflected at the border, where zeros would be a colour of their own."""
    return nn.Conv2d(channels, width, kernel, stride, (kernel - 1) // 2, padding_mode="reflect")


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3, of one width."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(width, width, 3), norm(width), nn.ReLU(), conv(width, width, 3), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> the same."""
        out: Tensor = x + self.branch(x)
        return out


def content_encoder(config: HistauganConfig) -> nn.Sequential:
    """Picture [N,C,H,W] -> content [N,4w,H/4,W/4] (paper: w = 64)."""
    w = config.width
    layers: list[nn.Module] = [conv(config.channels, w, 7), nn.LeakyReLU(0.01)]
    for narrow, wide in ((w, 2 * w), (2 * w, 4 * w)):
        layers += [conv(narrow, wide, 3, stride=2), instance_norm(wide), nn.ReLU()]
    return nn.Sequential(*layers, *(Residual(4 * w, instance_norm) for _ in range(config.blocks)))


class AttributeEncoder(nn.Module):
    """Picture and domain -> style. Nothing is normalised: brightness and contrast are what it must see."""

    def __init__(self, config: HistauganConfig, domains: int) -> None:
        super().__init__()
        w = config.width
        widths = (config.channels + _planes(domains), w, 2 * w, 4 * w, 4 * w)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [conv(narrow, wide, 3, stride=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4 * w, 2 * config.style)
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):  # without a norm, torch's own weights let the signal fade layer by layer
                nn.init.kaiming_normal_(layer.weight, a=0.2)

    def forward(self, x: Tensor, domain: Tensor) -> Style:
        """x [N,C,H,W], domain [N,K] one-hot."""
        mean, log_variance = self.head(self.body(_with_planes(x, _told(domain)))).chunk(2, 1)
        # Beyond exp(5) the noise drowns everything, and its exponential the loss.
        return Style(mean, log_variance.clamp(-10.0, 5.0))


class Decoder(nn.Module):
    """Content, style and domain -> picture; style and domain enter before each upsampling and before the last layer."""

    def __init__(self, config: HistauganConfig, domains: int) -> None:
        super().__init__()
        w, extra = config.width, config.style + _planes(domains)
        self.shared = Residual(4 * w, instance_norm)
        self.mixed = nn.Sequential(_block(4 * w + extra, 4 * w), *(Residual(4 * w, layer_norm) for _ in range(2)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), _block(wide + extra, narrow))
            for wide, narrow in ((4 * w, 2 * w), (2 * w, w))
        )
        self.last = nn.Sequential(conv(w + extra, config.channels, 7), nn.Tanh())

    def forward(self, content: Tensor, style: Tensor, domain: Tensor) -> Tensor:
        """content [N,4w,h,w], style [N,S], domain [N,K] -> [N,C,4h,4w] in -1..1."""
        code = torch.cat([style, _told(domain)], 1)
        x = self.mixed(_with_planes(self.shared(content), code))
        for up in self.up:
            x = up(_with_planes(x, code))
        picture: Tensor = self.last(_with_planes(x, code))
        return picture


class Histaugan(nn.Module):
    """What is saved: both encoders, the decoder, and each domain's mean and spread of style [K,S]."""

    style_mean: Tensor
    style_std: Tensor

    def __init__(self, config: HistauganConfig, domains: int) -> None:
        super().__init__()
        self.content = content_encoder(config)
        self.attribute = AttributeEncoder(config, domains)
        self.decoder = Decoder(config, domains)
        self.register_buffer("style_mean", torch.zeros(domains, config.style))
        self.register_buffer("style_std", torch.ones(domains, config.style))

    def forward(self, x: Tensor, style: Tensor, domain: Tensor) -> Tensor:
        """Restyle: x [N,C,H,W] in -1..1, style [N,S], domain [N,K] one-hot -> [N,C,H,W]."""
        restyled: Tensor = self.decoder(self.content(x), style, domain)
        return restyled


class Verdict(NamedTuple):
    """What an image critic says."""

    real: Tensor
    """[N,1,h,w] logits, one a patch."""
    domain: Tensor | None
    """[N,K] logits; None where there is one domain, which nobody can mistake."""


class ImageCritic(nn.Module):
    """Real or generated, patch by patch, and of which domain."""

    def __init__(self, config: HistauganConfig, domains: int) -> None:
        super().__init__()
        # Down to some 4 pixels; as many widths as the paper has, but none above 8 w, where most weights would lie.
        count = max(2, min(6, config.crop.bit_length() - 2))
        widths = [config.channels, *(config.width * min(2**i, 8) for i in range(count))]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.body = nn.Sequential(*layers)
        self.real = nn.Conv2d(widths[-1], 1, 1)
        self.domain = _classifier(widths[-1], domains) if domains > 1 else None

    def forward(self, x: Tensor) -> Verdict:
        """[N,C,H,W] in -1..1."""
        features = self.body(x)
        return Verdict(self.real(features), None if self.domain is None else self.domain(features))


def content_critic(config: HistauganConfig, domains: int) -> nn.Sequential:
    """Content [N,4w,h,w] -> logits [N,K] of the domain that it came from."""
    w = 4 * config.width
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [conv(w, w, 3, stride=2), layer_norm(w), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Conv2d(w, w, 1), nn.LeakyReLU(0.01), _classifier(w, domains))


def _classifier(width: int, domains: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, domains))


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv(channels, width, 3), layer_norm(width), nn.ReLU())


def _planes(domains: int) -> int:
    """Planes that tell the domain: none where there is one, for a constant says nothing that a bias does not."""
    return domains if domains > 1 else 0


def _told(domain: Tensor) -> Tensor:
    return domain[:, : _planes(domain.shape[1])]


def _with_planes(x: Tensor, code: Tensor) -> Tensor:
    """x [N,C,H,W] and code [N,D], each of its numbers a plane -> [N,C+D,H,W]."""
    return torch.cat([x, code[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
