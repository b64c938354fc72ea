"""How a learning rate goes down in the course of a training."""

from __future__ import annotations

import math

import torch


def set_rate(optimizer: torch.optim.Optimizer, start: float, decay: str, progress: float) -> None:
    """Set the rate at `progress` (0 the beginning, 1 the end): "none" leaves it, the others go from `start` to 0.

    cosine       Loshchilov and Hutter 2017, without restarts
    linear_half  as it is for the first half, then in a straight line (CycleGAN, Zhu et al. 2017)
    """
    share = 1.0
    if decay == "cosine":
        share = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    elif decay == "linear_half":
        share = min(1.0, max(0.0, 2.0 * (1.0 - progress)))
    for group in optimizer.param_groups:
        group["lr"] = start * share
