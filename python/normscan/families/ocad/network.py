"""The attention auto-encoder."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from normscan.families.ocad.config import OcadConfig
from normscan.nn.attention import SelfAttention


class OcadOutputs(NamedTuple):
    """The network's named outputs."""

    image: Tensor
    """[N,C,H,W]: the input, so that the scorer needs nothing else."""
    reconstruction: Tensor
    """[N,C,H,W] in 0..1."""
    latent: Tensor
    """[N,D,h,w], h = H / 2^stages."""


def conv3(channels: int, width: int, config: OcadConfig) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, width, 3, padding=1, padding_mode=config.padding)


def encoder(config: OcadConfig) -> nn.Sequential:
    """conv3, ReLU, max-pool per stage; self-attention after one (paper: 3 -> 256 -> 128 -> attention -> 64)."""
    layers: list[nn.Module] = []
    channels: int = config.channels
    for stage, width in enumerate(config.widths, start=1):
        layers.append(conv3(channels, width, config))
        if stage < len(config.widths) or config.latent_relu:
            layers.append(nn.ReLU())
        layers.append(nn.MaxPool2d(2))
        if stage == config.attention_after:
            layers.append(SelfAttention(width, config.heads, config.key_size))
        channels = width
    return nn.Sequential(*layers)


def decoder(config: OcadConfig) -> nn.Sequential:
    """conv3, ReLU, up 2 per stage in reverse order, then conv3 to the picture and a sigmoid."""
    layers: list[nn.Module] = []
    channels = config.widths[-1]
    for width in reversed(config.widths):
        layers += [conv3(channels, width, config), nn.ReLU(), nn.Upsample(scale_factor=2)]
        channels = width
    return nn.Sequential(*layers, conv3(channels, config.channels, config), nn.Sigmoid())


class OcadNetwork(nn.Module):
    """x [N,C,H,W] in 0..1 -> `OcadOutputs`; the same in training and evaluation."""

    def __init__(self, config: OcadConfig) -> None:
        super().__init__()
        self.encoder = encoder(config)
        self.decoder = decoder(config)

    def forward(self, x: Tensor) -> OcadOutputs:
        """Encode and decode."""
        latent = self.encoder(x)
        return OcadOutputs(x, self.decoder(latent), latent)
