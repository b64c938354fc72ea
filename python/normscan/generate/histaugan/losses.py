"""The losses of HistAuGAN that torch does not name. Each is a mean over the batch, whatever its size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from normscan.generate.histaugan.network import Style


def adversarial_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Binary cross-entropy of logits of any shape against real (1) or generated (0)."""
    return functional.softplus(-logits if real else logits).mean()


def domain_loss(logits: Tensor, domain: Tensor) -> Tensor:
    """Cross-entropy of logits [N,K] against one-hot domains [N,K]."""
    return -(domain * logits.log_softmax(1)).sum(1).mean()


def confusion_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of logits [N,K] against "it may be any": smallest where the content says nothing of its domain."""
    return -logits.log_softmax(1).mean()


def kl_loss(style: Style) -> Tensor:
    """KL divergence of the style's Gaussian from N(0, I): summed over its numbers, mean over the batch."""
    mean, log_variance = style
    return 0.5 * (mean.square() + torch.exp(log_variance) - 1.0 - log_variance).sum(1).mean()


def spread(style: Style) -> tuple[Tensor, Tensor]:
    """(mean [S], standard deviation [S]) of the styles of many pictures: between pictures and within each."""
    mean, log_variance = style
    variance = mean.var(0, correction=0) + torch.exp(log_variance).mean(0)
    return mean.mean(0), variance.sqrt()
