"""The card that declares a family, and the two protocols between a family and the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from normscan.families.config import Config
from normscan.scoring.spec import ScoringSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """What one training step sees. Tensors lie on the training device."""

    x: Tensor
    """[N,C,H,W] float32, augmented and prepared as the spec's input says."""
    label: Tensor
    """[N] int64: 0 normal, 1 abnormal, -1 unknown."""
    weight: Tensor
    """[N] float32."""
    index: Tensor
    """[N] int64: position in the training list."""
    origin: tuple[str, ...]
    """Where each picture comes from: "ok", "generated", "generated_from_template", or "abnormal" where a stage asks."""
    unlabelled: Tensor | None = None
    """[N,C,H,W] float32, augmented and prepared as x is, for a stage that asks for it (`Schedule.unlabelled`)."""
    origins: frozenset[str] = frozenset({"ok"})
    """Every origin that the stage's pictures have, whether or not one of them is in this batch."""


@dataclass(frozen=True)
class Schedule:
    """How long one stage trains, and what its epochs are judged by."""

    epochs: int
    """0: the stage is skipped."""
    patience: int
    """Validations without gain before it stops."""
    validate_every: int
    judge: ScoringSpec | None = None
    """What the epochs are validated by; None: the family's spec. For a stage in which that says nothing yet."""
    restores: str | None = None
    """The output that is to be the normal picture, whatever was planted in it: epochs are then judged by how far it is
    from that. None: by how far planted anomalies score above normals."""
    keeps_start: bool = False
    """Validate before the first epoch too, so that a stage which only does harm leaves the network as it was."""
    keeps_last: bool = False
    """Run to the end and keep the last weights; validations are then shown and decide nothing."""
    steps: int | None = None
    """Of an epoch, where the method counts iterations and not passes; None: one pass through the pictures."""
    abnormal: bool = False
    """Whether the stage sees the abnormal pictures that were given to the training."""
    unlabelled: bool = False
    """Whether the stage sees the unlabelled pictures, of families whose supervision is "unlabelled"."""


class Step(Protocol):
    """Owns optimisers, critics, moving averages: all that training needs and the export does not."""

    schedule: Schedule

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Called before the first batch of an epoch; `loader` gives the training pictures, unaugmented."""

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimisation step; returns its losses, the total under "loss"."""

    def validated(self, stale: int) -> None:
        """Called after each validation with the number of validations since the last gain (0: this one gained)."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to be bit-equal: tensors, numbers, strings, lists and dicts of them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""


def nothing_to_start(network: nn.Module, config: Any) -> dict[str, str]:
    """Of families that begin from random weights."""
    del network, config
    return {}


def nothing_to_finish(network: Any, labelled: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Of families that are ready when their last stage is."""
    del network, labelled
    return {}


@dataclass(frozen=True)
class Family:
    """One published method."""

    name: str
    """The folder's name, the paper's short name."""
    paper: str
    """Citation."""
    supervision: str
    """What training may see: "one_class" (normals only), "unlabelled" (normals, and pictures of which no label is read)
    or "supervised"."""
    config: type[Config]
    network: Callable[[Any], nn.Module]
    """config -> the module that is exported; forward(x [N,C,H,W]) gives a NamedTuple of named tensors."""
    stages: tuple[Callable[[Any, Any], Step], ...]
    """Each (network, config) -> Step, run in order."""
    spec: Callable[[Any], ScoringSpec]
    """config -> the spec, over the NamedTuple's names."""
    tiny: Mapping[str, Any]
    """The smallest config; the contract test runs it."""
    start: Callable[[Any, Any], Mapping[str, str]] = nothing_to_start
    """(network, config) -> gives a fresh network its published weights; what it returns goes into the manifest."""
    finish: Callable[[Any, Iterable[tuple[Any, Any]]], Mapping[str, float]] = nothing_to_finish
    """(network, validation batches as (x [N,C,H,W], label [N]) in numpy) -> what it set, for the manifest; once, after
    training, before the scale of the terms and the threshold."""
    abnormal: Mapping[str, Any] | None = None
    """The config fields that `--abnormal` sets; None where the family has no supervised form."""
