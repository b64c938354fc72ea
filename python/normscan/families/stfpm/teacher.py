"""Fine-tuning the teacher: on a task that normal pictures set by themselves, or on known abnormal ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.errors import ConfigError
from normscan.families.family import Batch, Schedule
from normscan.families.stfpm.config import StfpmConfig
from normscan.families.stfpm.network import StfpmNetwork
from normscan.families.stfpm.spec import teacher_spec
from normscan.families.stfpm.tasks import CLASSES, cutpaste, rotated

TASKS = {"none": (), "cutpaste": ("cutpaste",), "rotation": ("rotation",), "best": ("cutpaste", "rotation")}
# The source's supervised form: weights by origin in its binary cross-entropy.
SUPERVISED = {"ok": 5.0, "generated": 1.0, "generated_from_template": 2.0, "abnormal": 10.0}


class TeacherStep:
    """Adam on the teacher and a linear head over its deepest level, which nothing else uses.

    Each task begins from the teacher's first weights. An epoch is judged by how well Gaussians of the teacher's
    features tell planted anomalies from normals (`teacher_spec`), the untouched teacher being judged too: a task that
    does not help leaves no trace, and the supervised form is no exception.
    """

    def __init__(self, network: StfpmNetwork, config: StfpmConfig) -> None:
        self.network, self.config = network, config
        supervised = config.teacher_task == "supervised"
        self.tasks = ("supervised",) if supervised else TASKS[config.teacher_task]
        epochs = config.teacher_epochs * len(self.tasks)
        self.schedule = Schedule(
            epochs,
            patience=max(epochs, 1),  # a second task may gain where the first did not
            validate_every=max(1, config.teacher_epochs // 5),
            judge=teacher_spec(config),
            keeps_start=True,
            abnormal=supervised,
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.first = {name: value.clone() for name, value in network.teacher.state_dict().items()}
        self.epoch = 0
        if self.tasks:
            self._begin(self.tasks[0])

    def _begin(self, task: str) -> None:
        """Back to the first weights, with a new head and optimiser."""
        teacher = self.network.teacher
        device = next(teacher.parameters()).device
        teacher.load_state_dict(self.first)
        teacher.requires_grad_(True)
        self.task = task
        self.head = nn.Linear(teacher.channels[-1], CLASSES[task])
        with torch.no_grad():
            self.head.weight.normal_(0.0, teacher.channels[-1] ** -0.5, generator=self.generator)
            self.head.bias.zero_()
        self.head.to(device)
        parameters = [*teacher.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(parameters, self.config.teacher_learning_rate)

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """The next task, once the one before has had its epochs."""
        del loader
        task = self.tasks[min(self.epoch // self.config.teacher_epochs, len(self.tasks) - 1)]
        if task != self.task:
            self._begin(task)
        self.epoch += 1

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of teacher and head."""
        if self.task == "supervised":
            loss = self._supervised(batch)
        else:
            x, target = (cutpaste if self.task == "cutpaste" else rotated)(batch.x, self.generator)
            loss = F.cross_entropy(self._logits(x), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"loss": loss.item()}

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.network.teacher(x)[-1].mean((2, 3)))
        return logits

    def _supervised(self, batch: Batch) -> Tensor:
        """Weighted binary cross-entropy, abnormal or not; what a picture is, its origin says."""
        weight = batch.weight.new_tensor([SUPERVISED[name] for name in batch.origin]) * batch.weight
        target = batch.weight.new_tensor([float(name == "abnormal") for name in batch.origin])
        each = F.binary_cross_entropy_with_logits(self._logits(batch.x)[:, 0], target, reduction="none")
        return (weight * each).mean()

    def validated(self, stale: int) -> None:
        """Nothing follows from it."""

    def state_dict(self) -> dict[str, Any]:
        """Task, head, optimiser, first weights, random state."""
        return {
            "task": self.task,
            "epoch": self.epoch,
            "first": self.first,
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; the network's weights are the loop's to bring back."""
        if state["task"] not in self.tasks:
            raise ConfigError(f"the checkpoint's task is {state['task']!r}, expected one of {', '.join(self.tasks)}")
        now = {name: value.clone() for name, value in self.network.teacher.state_dict().items()}
        self.first = dict(state["first"])
        self._begin(state["task"])
        self.network.teacher.load_state_dict(now)
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch = int(state["epoch"])
