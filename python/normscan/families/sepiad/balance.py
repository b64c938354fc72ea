"""How much the reconstruction weighs beside the game: as much as makes both pull alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Balance:
    """The weight of one network's reconstruction loss (PIAD, section 3.3; the numbers are SEPIAD's).

    A record holds, for every layer, |gradient of the game| over |gradient of the reconstruction|, both norms smoothed;
    the weight is the median over layers and records, and changes every `every` iterations only; until those have passed
    for the first time, with every record.
    """

    def __init__(self, *, smoothing: float, records: int, every: int) -> None:
        self.smoothing, self.every = smoothing, every
        self.records: deque[list[float]] = deque(maxlen=records)
        self.norms: Tensor | None = None  # [2, layers]
        self.iterations = 0
        self.weight = 1.0

    def record(self, game: Sequence[Tensor], reconstruction: Sequence[Tensor]) -> None:
        """Gradients of both losses, a tensor for each layer."""
        norms = torch.stack([torch.stack(torch._foreach_norm(list(g))) for g in (game, reconstruction)]).float()
        self.norms = norms if self.norms is None else torch.lerp(self.norms.to(norms), norms, self.smoothing)
        ratios = self.norms[0] / self.norms[1].clamp_min(1e-20)
        self.records.append(ratios.tolist())
        if self.iterations < self.every:
            self._set()

    def advance(self) -> None:
        """Count an iteration."""
        self.iterations += 1
        if self.iterations % self.every == 0 and self.records:
            self._set()

    def _set(self) -> None:
        self.weight = float(torch.tensor(list(self.records)).median())

    def state_dict(self) -> dict[str, Any]:
        """Records, norms, weight."""
        return {
            "records": torch.tensor(list(self.records)),
            "norms": torch.zeros(0) if self.norms is None else self.norms,
            "iterations": self.iterations,
            "weight": self.weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.records.clear()
        self.records.extend(state["records"].tolist())
        self.norms = state["norms"] if len(state["norms"]) else None
        self.iterations, self.weight = int(state["iterations"]), float(state["weight"])
