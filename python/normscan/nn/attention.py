"""Attention over the positions of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normscan import ops


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, with residual and LayerNorm over channels (post-norm).

    x [N,C,H,W]  ->  [N,C,H,W]; `heads` heads with queries, keys and values of `key_size` each.
    """

    def __init__(self, channels: int, heads: int, key_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(channels, 3 * heads * key_size)
        self.project_out = nn.Linear(heads * key_size, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [N, H*W, C]
        q, k, v = self.project_in(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = ops.attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = self.norm(tokens + self.project_out(attended))
        out: Tensor = tokens.transpose(1, 2).reshape(n, c, h, w)
        return out


class SpatialAttention(nn.Module):
    """x + gamma * multi-head attention over all positions, which also knows how far apart they are.

    gamma begins at 0 (SAGAN, Zhang et al. 2019, eq. 3); the bias by relative position is Swin's (Liu et al. 2021).
    `grid` is the height and width of what it attends to.
    """

    def __init__(self, channels: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.grid = heads, grid
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.bias = nn.Parameter(torch.zeros(heads, 2 * grid[0] - 1, 2 * grid[1] - 1))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,C,H,W]."""
        q, k, v = self._tokens(torch.unflatten(self.project(x), 1, (3, -1))).unbind(1)
        residual = self._tokens(x)
        attended = ops.attention(q, k, v, bias=self.bias, grid=self.grid, residual=residual, gamma=self.gamma)
        out: Tensor = attended.transpose(2, 3).flatten(1, 2).unflatten(2, self.grid)
        return out

    def _tokens(self, x: Tensor) -> Tensor:
        """[...,C,H,W] -> [...,heads,H*W,C/heads], without a copy where channels lie side by side."""
        return torch.unflatten(x, -3, (self.heads, -1)).flatten(-2).transpose(-1, -2)
