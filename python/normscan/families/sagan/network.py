"""The generator: windows through an encoder, residual blocks and a gated decoder, and what they add to the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.families.sagan.config import SaganConfig
from normscan.families.sagan.windows import Grid, merge, position_planes, split
from normscan.nn.attention import SpatialAttention

LEVELS = 3
"""How often a window is halved."""


class SaganOutputs(NamedTuple):
    """The network's named outputs, [N,C,H,W] in -1..1 each."""

    image: Tensor
    restored: Tensor


def norm(channels: int) -> nn.InstanceNorm2d:
    """Over the positions of each channel of each window; nothing is kept, so that training and scoring are alike."""
    return nn.InstanceNorm2d(channels, affine=True)


class ResidualBlock(nn.Module):
    """conv3, norm, ReLU, conv3, norm, and the way past them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # A bias before a norm has no effect.
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = norm(width), norm(width)
        self.past = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [M,C,h,w] -> [M,width,h,w]."""
        out: Tensor = self.past(x) + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return out


class Position(nn.Module):
    """A 1x1 convolution of the features with the planes of each window's place (`position_planes`) beside them.

    The planes are constant over a window, and so is what they add: it is computed once a window, not at every pixel.
    """

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        planes = position_planes(grid)
        self.planes: Tensor
        self.register_buffer("planes", planes, persistent=False)
        self.features = nn.Conv2d(width, width, 1)
        self.place = nn.Linear(planes.shape[1], width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N*windows,C,h,w] -> the same size."""
        y = torch.unflatten(self.features(x), 0, (-1, self.planes.shape[0]))
        shift: Tensor = self.place(self.planes)[None, :, :, None, None]
        return (y + shift).flatten(0, 1)


class Down(nn.Module):
    """conv4 to half the side, norm, position, ReLU.

    The ReLU comes last: what is constant over a window would not survive the next norm without one between them.
    """

    def __init__(self, channels: int, config: SaganConfig) -> None:
        super().__init__()
        width = 2 * channels
        self.conv, self.norm = nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), norm(width)
        self.merge = Position(width, config.grid) if config.position == "planes" else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [M,C,h,w] -> [M,2C,h/2,w/2]."""
        return F.relu(self.merge(self.norm(self.conv(x))))


class Gate(nn.Module):
    """An additive attention gate: which positions of a skip matter (Oktay et al. 2018, arXiv 1804.03999)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.of_guide = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), norm(inner))
        self.of_skip = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), norm(inner))
        self.psi = nn.Sequential(nn.ReLU(), nn.Conv2d(inner, 1, 1, bias=False), norm(1), nn.Sigmoid())

    def forward(self, guide: Tensor, skip: Tensor) -> Tensor:
        """guide and skip [M,C,h,w] -> the skip times a factor in 0..1 for each position."""
        gated: Tensor = skip * self.psi(self.of_guide(guide) + self.of_skip(skip))
        return gated


class Up(nn.Module):
    """The gated skip beside the features, a residual block, perhaps attention, a conv-transpose to twice the side."""

    def __init__(self, width: int, config: SaganConfig, attended: Grid | None) -> None:
        super().__init__()
        self.gate = Gate(width) if config.attention == "additive" else None
        self.block = ResidualBlock(2 * width, width)
        self.attend = nn.Identity() if attended is None else SpatialAttention(width, config.heads, attended)
        self.up = nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1, bias=False)
        self.norm = norm(width // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x and skip [M,C,h,w] -> [M,C/2,2h,2w]."""
        if self.gate is not None:
            skip = self.gate(x, skip)
        return F.relu(self.norm(self.up(self.attend(self.block(torch.cat([x, skip], 1))))))


class Generator(nn.Module):
    """x [N,C,H,W] in -1..1 -> what makes it normal when it is added, [N,C,H,W]."""

    def __init__(self, config: SaganConfig) -> None:
        super().__init__()
        self.grid, width = config.grid, config.width
        first = nn.Conv2d(config.channels, width, 7, padding=3, bias=False)
        self.first = nn.Sequential(first, norm(width), nn.ReLU())
        self.down = nn.ModuleList(Down(width << level, config) for level in range(LEVELS))
        deepest = width << LEVELS
        self.blocks = nn.Sequential(*(ResidualBlock(deepest, deepest) for _ in range(config.blocks)))
        half = (config.window[0] // 2, config.window[1] // 2)
        places = [half if config.attention == "fused" and level == 1 else None for level in range(LEVELS, 0, -1)]
        widths = [width << level for level in range(LEVELS, 0, -1)]
        self.up = nn.ModuleList(Up(w, config, place) for w, place in zip(widths, places, strict=True))
        self.fuse = nn.ModuleList(nn.Conv2d(w // 2, width, 1) for w in widths)
        self.last = nn.Conv2d(width, config.channels, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, decode, and add the decoder's levels up at the finest."""
        x = self.first(split(x, self.grid))
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x, levels = self.blocks(x), []
        for up, fuse, skip in zip(self.up, self.fuse, skips[::-1], strict=True):
            x = up(x, skip)
            levels.append(fuse(x))
        side = x.shape[2:]
        scaled = [F.interpolate(one, size=side, mode="bilinear", align_corners=False) for one in levels[:-1]]
        fused = F.relu(sum(scaled, start=levels[-1]))
        return merge(self.last(fused), self.grid)


class _Clip(torch.autograd.Function):
    """Clip to -1..1. The gradient passes as if there were no clip, but for what leads further out.

    A clip's own gradient is 0 beyond the border, and what has got there stays; so it almost is for tanh. Let through
    without a condition, nothing would hold what is beyond the border.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Clip."""
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Descent goes against the gradient: beyond 1, a negative one leads out."""
        (x,) = ctx.saved_tensors
        return grad.masked_fill(((x > 1) & (grad < 0)) | ((x < -1) & (grad > 0)), 0.0)


_clip: Callable[[Tensor], Tensor] = _Clip.apply


def restore(x: Tensor, change: Tensor, kept: Tensor | None = None) -> Tensor:
    """x + change, clipped to -1..1: x itself, bit for bit, where the change is 0.

    kept  bool [N,1,H,W]: pixels that stay as they are; training alone has them
    """
    total = x + change.to(x.dtype)
    restored: Tensor = _clip(total) if total.requires_grad else total.clamp(-1.0, 1.0)
    return restored if kept is None else torch.where(kept, x, restored)


class SaganNetwork(nn.Module):
    """x [N,C,H,W] in -1..1 -> itself and its restoration."""

    def __init__(self, config: SaganConfig) -> None:
        super().__init__()
        self.generator = Generator(config)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> SaganOutputs:
        """The same in training and evaluation, but for what training keeps of x: see `restore`."""
        return SaganOutputs(x, restore(x, self.generator(x), kept))
