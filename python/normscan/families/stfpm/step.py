"""Teaching the student."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from normscan import ops
from normscan.families.family import Batch, Schedule
from normscan.families.simple import SimpleStep
from normscan.families.stfpm.config import StfpmConfig
from normscan.families.stfpm.network import StfpmNetwork

TEMPLATE = "generated_from_template"
# The source's weights, without and with one good template.
WEIGHTS = {"ok": 9.0, "generated": 1.0}
WEIGHTS_TEMPLATE = {"ok": 5.0, "generated": 1.0, TEMPLATE: 2.0}


def origin_weights(origin: Sequence[str], origins: Collection[str], like: Tensor) -> Tensor:
    """A weight for each picture [N] by its origin, on the device of `like`.

    origins  every origin of the training: one picture generated from a template switches all weights
    """
    table = WEIGHTS_TEMPLATE if TEMPLATE in origins else WEIGHTS
    return torch.tensor([table[name] for name in origin], dtype=torch.float32, device=like.device)


def student_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Mean over pictures of w_i sum_l 1/(h_l w_l) sum_p 0.5 |s/|s| - t/|t||^2 (STFPM, eqs. 1 to 3; w: the source's).

    student, teacher  [N,C_l,h_l,w_l] each level;  weight [N]. Each picture keeps its own weight, however many there
    are in a batch.
    """
    levels = zip(student, teacher, strict=True)
    distances = [ops.distance_map(s.float(), t.float(), metric="cosine").mean((1, 2)) for s, t in levels]
    loss: Tensor = (weight * torch.stack(distances).sum(0)).mean()
    return loss


class StudentStep(SimpleStep):
    """SGD on `student_loss`; the teacher is frozen."""

    def __init__(self, network: StfpmNetwork, config: StfpmConfig) -> None:
        optimizer = torch.optim.SGD(
            network.student.parameters(),
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        super().__init__(optimizer, learning_rate=config.learning_rate, decay=config.decay, epochs=config.epochs)
        self.network, self.config = network, config
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every)
        self.network.teacher.requires_grad_(False)
        self._kept: dict[int, list[Tensor]] = {}

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the student."""
        weight = batch.weight * origin_weights(batch.origin, batch.origins, batch.weight)
        teacher = self._teacher(batch)
        return self.update(student_loss(self.network.student(batch.x), teacher, weight))

    @torch.no_grad()
    def _teacher(self, batch: Batch) -> list[Tensor]:
        """The teacher's features, float32 as in scoring; of pictures that never change computed once, as memory allows.

        Which are kept depends on a picture's place in the list alone, and each is computed by itself: a resumed run
        computes the same bits, whatever shares a batch with it.
        """
        sides = [self.config.size // stride + 1 for stride in (4, 8, 16)]
        channels = self.network.teacher.channels
        bytes_each = 4 * sum(c * side * side for c, side in zip(channels, sides, strict=True))
        room = 0 if self.config.augments else (self.config.cache_mb << 20) // bytes_each
        places = batch.index.tolist()
        with torch.autocast(batch.x.device.type, enabled=False):
            if max(places) >= room:
                return list(self.network.teacher(batch.x))
            for i, place in enumerate(places):
                if place not in self._kept:
                    self._kept[place] = list(self.network.teacher(batch.x[i : i + 1]))
        return [torch.cat(level) for level in zip(*(self._kept[place] for place in places), strict=True)]
