"""A backbone, the mean of its features over the patch, two logits, and a probability that was calibrated afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from normscan.families.patch_cnn.config import PatchCnnConfig
from normscan.nn.features import backbone
from normscan.nn.weights import load_backbone
from normscan.scoring.probability import platt


class PatchCnnOutputs(NamedTuple):
    """The network's named outputs."""

    logits: Tensor
    """[N,2]: normal, abnormal; as trained, before any calibration."""
    probability: Tensor
    """[N,1] in 0..1: of an abnormal patch."""


class PatchCnn(nn.Module):
    """x [N,3,H,W], ImageNet-normalised -> `PatchCnnOutputs`."""

    slope: Tensor
    offset: Tensor

    def __init__(self, config: PatchCnnConfig) -> None:
        super().__init__()
        self.features = backbone(config.backbone, (config.layer,), width=config.width, folded=not config.batch_norm)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.features.channels[-1], 2)
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, x: Tensor) -> PatchCnnOutputs:
        """The same in training and evaluation."""
        (found,) = self.features(x)
        logits = self.classifier(self.dropout(found.mean((2, 3)))).float()
        evidence = logits[:, 1:] - logits[:, :1]
        return PatchCnnOutputs(logits, torch.sigmoid(self.slope * evidence + self.offset))


def start(network: PatchCnn, config: PatchCnnConfig) -> dict[str, str]:
    """Give the backbone its weights -> where they are from."""
    return load_backbone(network.features, config.backbone, config.weights, seed=config.seed)


@torch.no_grad()
def finish(network: PatchCnn, labelled: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Calibrate the probability on validation patches (x [N,3,H,W], label [N]) -> slope and offset."""
    device = next(network.parameters()).device
    evidence, labels = [], []
    for x, label in labelled:
        logits = network.eval()(torch.from_numpy(x).to(device)).logits
        evidence.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
        labels.append(label)
    slope, offset = platt(np.concatenate(evidence), np.concatenate(labels))
    network.slope.fill_(slope)
    network.offset.fill_(offset)
    return {"slope": slope, "offset": offset}
