"""One stage: cross-entropy in which both classes weigh alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from normscan.errors import InputError
from normscan.families.family import Batch, Schedule
from normscan.families.patch_cnn.config import PatchCnnConfig
from normscan.families.patch_cnn.network import PatchCnn
from normscan.families.simple import SimpleStep


def classification_loss(logits: Tensor, label: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Mean of w_i c_(y_i) (-log softmax(logits_i)_(y_i)) over pictures whose label is known -> scalar.

    logits [N,2] as the classifier gives them: a softmax before this one would flatten every gradient. label [N]: 0, 1,
    or -1 (unknown). weight [N]; classes [2]: a class's weight.
    """
    known = label >= 0
    each = F.cross_entropy(logits[known], label[known], weight=classes, reduction="none")
    return (each * weight[known]).sum() / max(len(label), 1)


class PatchCnnStep(SimpleStep):
    """AdamW on `classification_loss`."""

    def __init__(self, network: PatchCnn, config: PatchCnnConfig) -> None:
        super().__init__(
            torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay),
            learning_rate=config.learning_rate,
            decay=config.decay,
            epochs=config.epochs,
        )
        self.network = network
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every, keeps_last=True)
        self.classes: Tensor | None = None

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Set the rate; before the first epoch, count the classes."""
        if self.classes is None:
            self.classes = _class_weights(torch.cat([batch.label for batch in loader]))
        super().begin_epoch(loader)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update."""
        assert self.classes is not None
        classes = self.classes.to(batch.x.device)
        return self.update(classification_loss(self.network(batch.x).logits, batch.label, batch.weight, classes))

    def state_dict(self) -> dict[str, Any]:
        """The classes' weights besides."""
        return {**super().state_dict(), "classes": self.classes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        super().load_state_dict(state)
        self.classes = state["classes"]


def _class_weights(label: Tensor) -> Tensor:
    """[n] -> [2]: each class together weighs as much as the other, and a picture 1 on average."""
    counts = torch.stack([(label == kind).sum() for kind in (0, 1)]).float()
    if not bool(counts.all()):
        raise InputError(
            f"training holds {int(counts[0])} normal and {int(counts[1])} abnormal pictures; a classifier needs both: "
            "add train/<anything else>/, or annotated patches of both kinds"
        )
    return counts.sum() / (2 * counts)
