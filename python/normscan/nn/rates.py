"""How a learning rate goes down in the course of a training."""

from __future__ import annotations

import math

import torch


def set_rate(optimizer: torch.optim.Optimizer, start: float, decay: str, progress: float) -> None:
    """Set the rate at `progress` (0 the first epoch, 1 the end): "none" leaves it, "cosine" goes from `start` to 0.

    Cosine: Loshchilov and Hutter 2017, without restarts.
    """
    share = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))) if decay == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = start * share
