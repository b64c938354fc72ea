"""Three auto-encoders of a patch: a U-Net without skips, one with them, and a small one of strided convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from normscan.families.stain_ae.config import StainAeConfig


class StainAeOutputs(NamedTuple):
    """The network's named outputs, [N,3,H,W] RGB in 0..1 each."""

    image: Tensor
    reconstruction: Tensor


def _double(channels: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised and rectified (Ronneberger et al. 2015, with batch norm).

    Edges are replicated: beyond zeros, red tissue that is cut off by the edge is given back badly, and pooling would
    take the edge of a patch for bacteria.
    """
    layers: list[nn.Module] = []
    for before in (channels, width):
        conv = nn.Conv2d(before, width, 3, padding=1, padding_mode="replicate", bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """x [N,3,H,W] -> [N,3,H,W]: half the side between two widths. With skips, a level sees its twin's features."""

    def __init__(self, widths: Sequence[int], *, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.down = nn.ModuleList(_double(before, width) for before, width in pairwise((3, *widths)))
        self.pool = nn.MaxPool2d(2)
        coarse_to_fine = list(pairwise(widths[::-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, width, 2, stride=2) for before, width in coarse_to_fine)
        self.merge = nn.ModuleList(_double(2 * width if skips else width, width) for _, width in coarse_to_fine)
        self.out = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the picture."""
        levels: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            levels.append(x)
        for up, merge, twin in zip(self.up, self.merge, levels[-2::-1], strict=True):
            x = up(x)
            x = merge(torch.cat([x, twin], 1) if self.skips else x)
        found: Tensor = self.out(x)
        return found


def conv_autoencoder(widths: Sequence[int]) -> nn.Sequential:
    """x [N,3,H,W] -> logits [N,3,H,W]: a strided convolution a width, and as many transposed ones back."""
    layers: list[nn.Module] = []
    for before, width in pairwise((3, *widths)):
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, padding_mode="replicate"), nn.ReLU(inplace=True)]
    for before, width in pairwise((*widths[::-1], 3)):
        layers += [nn.ConvTranspose2d(before, width, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class StainAe(nn.Module):
    """x [N,3,H,W] in 0..1 -> itself and its reconstruction."""

    def __init__(self, config: StainAeConfig) -> None:
        super().__init__()
        self.autoencoder: nn.Module = (
            conv_autoencoder(config.widths)
            if config.architecture == "conv"
            else UNet(config.widths, skips=config.architecture == "unet_skips")
        )

    def forward(self, x: Tensor) -> StainAeOutputs:
        """The same in training and evaluation."""
        return StainAeOutputs(x, torch.sigmoid(self.autoencoder(x).float()))
