"""Self-attention over the positions of a feature map."""

from __future__ import annotations

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
