"""One stage: the auto-encoder learns to give back patches of negative patients."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from normscan.families.family import Batch, Schedule
from normscan.families.simple import SimpleStep
from normscan.families.stain_ae.config import StainAeConfig
from normscan.families.stain_ae.network import StainAe


class StainAeStep(SimpleStep):
    """Adam on the difference of picture and reconstruction."""

    def __init__(self, network: StainAe, config: StainAeConfig) -> None:
        super().__init__(
            torch.optim.Adam(network.parameters(), config.learning_rate),
            learning_rate=config.learning_rate,
            decay=config.decay,
            epochs=config.epochs,
        )
        self.network, self.config = network, config
        # The source trains a fixed number of epochs. Planted anomalies are no guide: they are larger than bacteria.
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every, keeps_last=True)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update."""
        image, reconstruction = self.network(batch.x)
        measure = F.mse_loss if self.config.loss == "mse" else F.l1_loss
        each = measure(reconstruction, image, reduction="none").mean((1, 2, 3))
        return self.update((each * batch.weight).mean())
