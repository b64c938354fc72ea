"""What stages have in common that update one optimiser at a rate set by the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from normscan.families.family import Batch
from normscan.nn.rates import set_rate


class SimpleStep:
    """A `Step` with one optimiser. What is left to a family: `schedule`, and `step`, which ends with `self.update`."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, learning_rate: float, decay: str, epochs: int) -> None:
        self.optimizer = optimizer
        self._rate, self._decay, self._epochs = learning_rate, decay, epochs
        self.epoch = 0

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Set the rate."""
        del loader
        set_rate(self.optimizer, self._rate, self._decay, self.epoch / self._epochs)
        self.epoch += 1

    def update(self, loss: Tensor) -> dict[str, float]:
        """One update by a scalar loss, and the loss as a step returns it."""
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
