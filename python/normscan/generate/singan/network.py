"""A generator for each scale, and their stack; the critic of one scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.generate.singan.config import SinganConfig
from normscan.generate.singan.pyramid import Size, resized


def convolutions(channels: int, out: int, width: int, layers: int) -> nn.Sequential:
    """`layers` 3 x 3 convolutions without padding, all but the last followed by batch norm and LeakyReLU(0.2).

    Batch norm never keeps running statistics: one picture is the whole training set, and a sample of it is normalised
    by itself, as in training.
    """
    parts: list[nn.Module] = []
    for layer in range(layers - 1):
        block = nn.Sequential(
            nn.Conv2d(channels if layer == 0 else width, width, 3),
            nn.BatchNorm2d(width, track_running_stats=False),
            nn.LeakyReLU(0.2),
        )
        parts.append(block)
    return nn.Sequential(*parts, nn.Conv2d(width, out, 3))


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """The published code's start: weights N(0, 0.02), batch norm N(1, 0.02), biases as torch has them by default.

    All of it is drawn again from `random`, because torch's default draws from its global state.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.02, generator=random)
            assert module.bias is not None
            bound = module.weight[0].numel() ** -0.5
            nn.init.uniform_(module.bias, -bound, bound, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02, generator=random)


class ScaleGenerator(nn.Module):
    """Adds a scale's detail: noise and image, both [1,C,H,W]  ->  image + residual (paper, eq. 3)."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        self.convolutions = convolutions(channels, channels, width, layers)
        self._border = layers

    def forward(self, noise: Tensor, image: Tensor) -> Tensor:
        """The border of zeros that the convolutions eat lies around their input (paper, supplement)."""
        residual: Tensor = self.convolutions(F.pad(noise + image, (self._border,) * 4))
        return image + residual.tanh()


class SinganNetwork(nn.Module):
    """All scales of one picture, coarsest first, with the fixed noise z* and the noise amplitudes."""

    sizes: Tensor
    amplitudes: Tensor
    z_star: Tensor

    def __init__(self, config: SinganConfig, channels: int, sizes: Sequence[Size]) -> None:
        super().__init__()
        self.channels = channels
        self.scales = nn.ModuleList(
            ScaleGenerator(channels, config.width_at(n), config.layers) for n in range(len(sizes))
        )
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))
        self.register_buffer("amplitudes", torch.ones(len(sizes)))
        self.register_buffer("z_star", torch.zeros(1, 1, *sizes[0]))

    def own_sizes(self) -> tuple[Size, ...]:
        """Of the scales as trained."""
        return tuple((int(h), int(w)) for h, w in self.sizes.tolist())

    def noise(self, scale: int, size: Size, random: torch.Generator) -> Tensor:
        """[1,C,*size] times the scale's amplitude; at the coarsest the channels share it. Drawn on the CPU, so that a
        seed means the same noise on every device.
        """
        drawn = torch.randn(1, self.channels if scale else 1, *size, generator=random)
        return drawn.to(self.z_star.device) * self.amplitudes[scale]

    def below(self, scale: int, image: Tensor | None, size: Size) -> Tensor:
        """What a scale adds its detail to: the coarser scale's image, enlarged; nothing at the coarsest."""
        if image is None:
            return torch.zeros(1, self.channels, *size, device=self.z_star.device)
        return resized(image, size)

    @torch.no_grad()
    def draw(
        self,
        random: torch.Generator,
        scales: int,
        *,
        sizes: Sequence[Size] | None = None,
        start: int = 0,
        image: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor | None:
        """A random image at the `scales`-th scale, from `image` (of scale `start` - 1) on; None of no scales."""
        sizes = sizes or self.own_sizes()
        for n in range(start, scales):
            noise = self.noise(n, sizes[n], random) * strength
            image = self.scales[n](noise, self.below(n, image, sizes[n]))
        return image

    @torch.no_grad()
    def reconstruct(self, scales: int) -> Tensor | None:
        """The image that z* gives at the `scales`-th scale; None of no scales."""
        image, sizes = None, self.own_sizes()
        for n in range(scales):
            below = self.below(n, image, sizes[n])
            image = self.scales[n](self.z_star if n == 0 else torch.zeros_like(below), below)
        return image
