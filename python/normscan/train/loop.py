"""The one training loop: epochs of steps, validation, early stop, checkpoints, and a log line for each epoch."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normscan.checkpoint import save_checkpoint
from normscan.errors import BundleError, Error
from normscan.families.config import Config
from normscan.families.family import Batch, Step
from normscan.files import told
from normscan.progress import Bar, bar, say
from normscan.train.fit import Validation, Validator
from normscan.train.loader import Make, Pictures, augmented, batches, epoch_order, plain, unlabelled_seed
from normscan.train.precision import resolve_precision

Watch = Callable[[nn.Module, Validation], None]
"""Called after every validation with the network as it stands, which it leaves so."""


@dataclass
class Progress:
    """Where training stands; stored in every checkpoint."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches done in the current epoch."""
    count: int = 0
    """Steps done in the whole run."""
    stale: int = 0
    """Validations since the last gain."""
    best: float = float("-inf")
    """Highest `Validation.gain` so far in this stage."""
    stopped: bool = False


class Loop:
    """Trains one stage; its state is the network, the Step, the best weights and `Progress`."""

    def __init__(
        self,
        network: nn.Module,
        step: Step,
        config: Config,
        pictures: Pictures,
        validator: Validator,
        *,
        unlabelled: Pictures | None = None,
        watch: Watch | None = None,
    ) -> None:
        """`unlabelled`: as many of them go with each batch as it has pictures."""
        self.network, self.step, self.config, self.unlabelled = network, step, config, unlabelled
        self.watch = watch
        self.pictures, self.size = pictures, validator.spec.input
        self.validator = validator.judged_by(step.schedule.judge, step.schedule.restores)
        self.precision = resolve_precision(config.precision, next(network.parameters()).device)
        self._origins = frozenset(record.origin for record in pictures.records)
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to be bit-equal."""
        progress = {**vars(self.progress), "best": None if self.progress.best == float("-inf") else self.progress.best}
        return {
            "network": self.network.state_dict(),
            "step": self.step.state_dict(),
            "best_weights": self.best_weights,
            "random": torch.get_rng_state(),
            "progress": progress,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        try:
            best = state["progress"]["best"]
            self.progress = Progress(**{**state["progress"], "best": float("-inf") if best is None else best})
            self.network.load_state_dict(state["network"])
            self.step.load_state_dict(state["step"])
            self.best_weights = dict(state["best_weights"])
            torch.set_rng_state(state["random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError(f"the checkpoint does not fit this run ({error!r}); start anew with --force") from error

    def run(self, folder: Path) -> None:
        """Train to the end of the stage, checkpointing in `folder`; then load the best weights, where they are kept."""
        progress, schedule = self.progress, self.step.schedule
        with _interruptible() as asked:
            while progress.epoch < schedule.epochs and not progress.stopped:
                if schedule.keeps_start and progress.epoch == progress.batch == 0 and not self.best_weights:
                    self._validate()
                self._epoch(folder, asked)
                save_checkpoint(folder / "checkpoints", self.state_dict())
                if asked:
                    raise KeyboardInterrupt
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)

    def _epoch(self, folder: Path, asked: list[bool]) -> None:
        progress, config, schedule = self.progress, self.config, self.step.schedule
        started = time.monotonic()
        if progress.batch == 0:
            self.step.begin_epoch(_Plain(self))
        seen, losses = 0, []
        with bar(f"epoch {progress.epoch + 1}/{schedule.epochs}", self._length or len(self.pictures)) as shown:
            shown.advance(progress.batch * config.batch_size)
            for batch in self._batches():
                figures = self._step(batch)
                losses.append(figures)
                seen += len(batch.x)
                progress.batch += 1
                progress.count += 1
                _show(shown, len(batch.x), figures)
                if asked:
                    save_checkpoint(folder / "checkpoints", self.state_dict())
                    raise KeyboardInterrupt
        row: dict[str, float] = {"stage": progress.stage, "epoch": progress.epoch + 1, "steps": progress.count}
        if losses:
            row |= {name: float(np.mean([figures[name] for figures in losses])) for name in losses[0]}
            row["images_per_second"] = seen / (time.monotonic() - started)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if progress.epoch % schedule.validate_every == 0 or progress.epoch == schedule.epochs:
            row |= self._validate()
        path = folder / "log.jsonl"
        with told(path), path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def _step(self, batch: Batch) -> dict[str, float]:
        self.network.train()
        with torch.autocast(batch.x.device.type, self.precision, enabled=self.precision != torch.float32):
            figures = self.step.step(batch)
        if not np.isfinite(figures["loss"]):
            raise Error(
                f"the loss is {figures['loss']} in epoch {self.progress.epoch + 1}, step {self.progress.count + 1}; "
                "lower learning_rate or gradient_clip, and look at the pictures with `normscan inspect`"
            )
        return figures

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch."""
        length = self._length or len(self.pictures)
        made = self._made(*self._drawn(self.pictures, self.config.seed, length))
        if self.unlabelled is None:
            yield from made
            return
        drawn = self._drawn(self.unlabelled, unlabelled_seed(self.config.seed), length)
        for batch, (x, _) in zip(made, batches(*drawn, self.config.batch_size), strict=True):
            yield replace(batch, unlabelled=self._placed(x))

    def _drawn(self, pictures: Pictures, seed: int, length: int) -> tuple[Make, np.ndarray]:
        """Pictures as this epoch sees them, and the order of those that are left of it."""
        progress, config = self.progress, self.config
        order = epoch_order(len(pictures), seed=seed, epoch=progress.epoch, length=length)
        make = augmented(pictures, self.size, seed=seed, epoch=progress.epoch, augmentation=config.augmentation)
        return make, order[progress.batch * config.batch_size :]

    def _placed(self, x: np.ndarray) -> Tensor:
        """On the training device, channels last."""
        return torch.from_numpy(x).to(next(self.network.parameters()).device, memory_format=torch.channels_last)

    @property
    def _length(self) -> int | None:
        """Pictures of an epoch, where it is counted in steps."""
        steps = self.step.schedule.steps
        return None if steps is None else steps * self.config.batch_size

    def _made(self, make: Make, order: np.ndarray) -> Iterator[Batch]:
        device = next(self.network.parameters()).device
        records = self.pictures.records
        for x, drawn in batches(make, order, self.config.batch_size):
            index = np.asarray(drawn, np.int64) % len(records)
            chosen = [records[i] for i in index]
            yield Batch(
                x=self._placed(x),
                label=torch.tensor([-1 if r.label is None else r.label for r in chosen], device=device),
                weight=torch.tensor([r.weight for r in chosen], dtype=torch.float32, device=device),
                index=torch.from_numpy(index).to(device),
                origin=tuple(r.origin for r in chosen),
                origins=self._origins,
            )

    def _validate(self) -> dict[str, float]:
        progress = self.progress
        found: Validation = self.validator(self.network)
        if found.gain > progress.best:
            progress.best, progress.stale = found.gain, 0
            if not self.step.schedule.keeps_last:
                self.best_weights = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        else:
            progress.stale += 1
        self.step.validated(progress.stale)
        schedule = self.step.schedule
        progress.stopped = progress.stale >= schedule.patience and not schedule.keeps_last
        kind = "labelled" if found.labelled else "planted"
        row = {"validation_auroc": found.auroc, "validation_separation": found.separation}
        judged = f"separation {found.separation:.2f} (best {progress.best:.2f}"
        if found.restoration is not None:
            row["validation_restoration"] = found.restoration
            judged = f"restoration error {found.restoration:.4f} (best {-progress.best:.4f}"
        stopping = ", stopping early" if progress.stopped else ""
        say(f"epoch {progress.epoch}: {kind} anomalies AUROC {found.auroc:.3f}, {judged}{stopping})")
        if self.watch is not None:
            self.watch(self.network, found)
        return row


class _Plain:
    """The training pictures as batches, unaugmented and in order, as often as they are asked for."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __iter__(self) -> Iterator[Batch]:
        loop = self._loop
        return loop._made(plain(loop.pictures, loop.size), np.arange(len(loop.pictures)))


def _show(shown: Bar, count: int, figures: Mapping[str, float]) -> None:
    shown.advance(count, loss=figures["loss"])


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Ctrl-C fills the list, so that the loop saves and stops between two steps; a second Ctrl-C stops at once."""
    asked: list[bool] = []

    def ask(*_: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        say("stopping after this step; press Ctrl-C again to stop without saving")

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield asked
        return
    # SIGTERM is what a batch system or a container sends before it kills.
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
