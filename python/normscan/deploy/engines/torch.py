"""torch, for run folders: the network as it was trained, before any export."""

from __future__ import annotations

import numpy as np
import torch

from normscan.deploy.bundle import Bundle
from normscan.errors import UsageError
from normscan.train.fit import outputs
from normscan.train.folder import Run
from normscan.train.run import resolve_device


class TorchEngine:
    """A run's network."""

    name = "torch"

    def __init__(self, run: Run, device: torch.device) -> None:
        self.device = str(device)
        self._network = run.network().to(device)

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs."""
        return outputs(self._network, x)

    def fingerprint(self) -> dict[str, str]:
        """Engine, version, device."""
        return {"engine": self.name, "version": torch.__version__, "device": self.device}


def open_engine(source: Bundle | Run, *, device: str, threads: int) -> TorchEngine:
    """Open a run; a bundle has no torch network."""
    if not isinstance(source, Run):
        raise UsageError("the torch engine opens a run folder, not a bundle")
    if threads:
        torch.set_num_threads(threads)
    return TorchEngine(source, resolve_device(device))
