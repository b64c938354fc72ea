"""One stage: the auto-encoder learns to give back patches of negative patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from normscan.families.family import Batch, Schedule
from normscan.families.stain_ae.config import StainAeConfig
from normscan.families.stain_ae.network import StainAe
from normscan.nn.rates import set_rate


class StainAeStep:
    """Adam on the difference of picture and reconstruction."""

    def __init__(self, network: StainAe, config: StainAeConfig) -> None:
        self.network, self.config = network, config
        # The source trains a fixed number of epochs. Planted anomalies are no guide: they are larger than bacteria.
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every, keeps_last=True)
        self.optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
        self.epoch = 0

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Set the rate."""
        del loader
        set_rate(self.optimizer, self.config.learning_rate, self.config.decay, self.epoch / self.config.epochs)
        self.epoch += 1

    def step(self, batch: Batch) -> dict[str, float]:
        """One update."""
        image, reconstruction = self.network(batch.x)
        measure = F.mse_loss if self.config.loss == "mse" else F.l1_loss
        each = measure(reconstruction, image, reduction="none").mean((1, 2, 3))
        loss = (each * batch.weight).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"loss": loss.item()}

    def validated(self, stale: int) -> None:
        """The rate follows the epoch, not the validations."""

    def state_dict(self) -> dict[str, Any]:
        """The optimiser, and how many epochs have begun."""
        return {"optimizer": self.optimizer.state_dict(), "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = int(state["epoch"])
