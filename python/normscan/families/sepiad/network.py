"""Encoder, generator and the features that compare their picture with the original, in one graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.families.sepiad.config import SepiadConfig
from normscan.nn.blocks import SLOPE, PreactivationBlock
from normscan.nn.features import IMAGENET_MEAN, IMAGENET_STD, backbone
from normscan.nn.outputs import outputs_type
from normscan.nn.weights import load_backbone

_LEAST_SPREAD = 1e-6


def shrinking(channels: int, widths: Sequence[int], size: int, out: int, gate: int | None) -> nn.Sequential:
    """Picture [N,C,size,size] -> [N,out]: conv3, a block of half the side for each width, a linear layer.

    The encoder, whose `out` is a code, and the image critic, whose `out` is one score.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
    before = widths[0]
    for width in widths:
        layers.append(PreactivationBlock(before, width, resample="down", gate=gate))
        before = width
    side = size >> len(widths)
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE), nn.Flatten(), nn.Linear(before * side * side, out))


def growing(latent: int, widths: Sequence[int], size: int, channels: int, gate: int | None) -> nn.Sequential:
    """Code [N,latent] -> picture [N,C,size,size] in -1..1: a linear layer, a block of twice the side each, conv3."""
    side = size >> len(widths)
    layers: list[nn.Module] = [nn.Linear(latent, widths[0] * side * side), nn.Unflatten(1, (widths[0], side, side))]
    before = widths[0]
    for width in widths:
        layers.append(PreactivationBlock(before, width, resample="up", gate=gate))
        before = width
    return nn.Sequential(*layers, nn.LeakyReLU(SLOPE), nn.Conv2d(before, channels, 3, padding=1), nn.Tanh())


class PerceptualFeatures(nn.Module):
    """Layers of a frozen published network, each channel standardised by what training normals have there."""

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, config: SepiadConfig) -> None:
        super().__init__()
        network = backbone(config.backbone, config.layers, width=config.width, folded=True)
        self.network = network.requires_grad_(False)
        self.side = config.feature_size
        # A picture is in -1..1 here; the published network expects ImageNet's mean and spread.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 2.0 - 1.0, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1) * 2.0, persistent=False)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        for level, channels in enumerate(network.channels):
            self.register_buffer(f"center_{level}", torch.zeros(channels, 1, 1))
            self.register_buffer(f"spread_{level}", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x [N,3,H,W] in -1..1 -> standardised features [N,C_l,h_l,w_l] of each level."""
        return [
            (f - getattr(self, f"center_{level}")) / getattr(self, f"spread_{level}")
            for level, f in enumerate(self._raw(x))
        ]

    def _raw(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.side is not None:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        found: tuple[Tensor, ...] = self.network((x - self.mean) / self.std)
        return found

    @torch.no_grad()
    def fit(self, pictures: Iterable[Tensor]) -> None:
        """Set each channel's mean and standard deviation from batches of training normals; once."""
        if bool(self.fitted):
            return
        sums: list[Any] = [0.0] * len(self.network.channels)
        squares, counts = list(sums), list(sums)
        for x in pictures:
            for level, f in enumerate(self._raw(x)):
                sums[level] += f.double().sum((0, 2, 3))
                squares[level] += f.double().square().sum((0, 2, 3))
                counts[level] += f.shape[0] * f.shape[2] * f.shape[3]
        for level, count in enumerate(counts):
            mean = sums[level] / count
            spread = (squares[level] / count - mean.square()).clamp_min(0).sqrt()
            # A channel that never varies is left as it is, about its mean.
            spread[spread < _LEAST_SPREAD] = 1.0
            getattr(self, f"center_{level}").copy_(mean[:, None, None])
            getattr(self, f"spread_{level}").copy_(spread[:, None, None])
        self.fitted.fill_(True)


class SepiadNetwork(nn.Module):
    """x [N,3,H,W] in -1..1 -> features_k of x and rebuilt_k of its reconstruction, [N,C_k,h_k,w_k] each."""

    def __init__(self, config: SepiadConfig) -> None:
        super().__init__()
        self.encoder = shrinking(config.channels, config.encoder_widths, config.size, config.latent, config.gate)
        self.generator = growing(config.latent, config.generator_widths, config.size, config.channels, config.gate)
        self.features = PerceptualFeatures(config)
        levels = range(1, len(config.layers) + 1)
        self.outputs = outputs_type([f"{which}_{k}" for which in ("features", "rebuilt") for k in levels])

    def forward(self, x: Tensor) -> Any:
        """The original and its reconstruction go through the features in one batch."""
        count = x.shape[0]
        both = self.features(torch.cat([x, self.generator(self.encoder(x))]))
        return self.outputs(*(f[:count] for f in both), *(f[count:] for f in both))


def start(network: SepiadNetwork, config: SepiadConfig) -> dict[str, str]:
    """Give the features their published weights -> where they are from."""
    return load_backbone(network.features.network, config.backbone, config.weights, seed=config.seed)
