"""The card that declares a generator, and what passes between it and the common training and sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from normscan.config import BaseConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from normscan.generate.model import Model
    from normscan.progress import Bar

Pixels = NDArray[np.uint8]
"""[H,W] grey or [H,W,3] RGB."""
OK, TEMPLATE = "ok", "template"
"""The domains that have a meaning of their own; further ones are named by their folders."""


class GeneratorConfig(BaseConfig):
    """What every generator's training needs; a generator adds its own fields and presets."""

    seed: int = Field(0, ge=0, le=2**63 - 1, description="of the weights, the noise and the order of pictures")


@dataclass(frozen=True, slots=True)
class Source:
    """One picture that a generator learns from."""

    path: Path
    domain: str = OK


@dataclass(frozen=True, slots=True)
class Made:
    """One generated picture; origin, seed and parent as in the table of generated images."""

    pixels: Pixels
    origin: str
    seed: int
    parent: Path | None


class Training(Protocol):
    """One training: units of work (scales, epochs), after each of which it can be stored and looked at."""

    unit: str
    """"scale" or "epoch"."""
    count: int
    """How many units there are."""

    def title(self, index: int) -> str:
        """What stands before the bar."""

    def length(self, index: int) -> int:
        """Steps of unit `index`, counted from 0."""

    def run(self, index: int, shown: Bar) -> dict[str, float]:
        """Train one unit, `shown.advance()` after each step; returns its mean losses for the log."""

    def sheet(self) -> Mapping[str, Sequence[Pixels]]:
        """Rows of pictures by caption: what is real beside what is made, as training stands."""

    def weights(self) -> dict[str, Tensor]:
        """What sampling needs, and no more."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed training needs to be bit-equal, its random state included."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""


@dataclass(frozen=True)
class Generator:
    """One published generator."""

    name: str
    """The folder's name, the paper's short name."""
    paper: str
    """Citation."""
    config: type[GeneratorConfig]
    options: type[BaseConfig]
    """What a call of `sample` may choose beside number and seed."""
    sources: Callable[[Path | None, Path | None], Sequence[Source]]
    """(pictures, the one good template) -> what is learnt from; an `Error` where that cannot be."""
    training: Callable[[Any, Sequence[Source], torch.device], Training]
    """(config, sources, device) -> a training."""
    sample: Callable[[Model, Any, Sequence[int], torch.device], Iterator[Made]]
    """(model, options, one seed a picture, device) -> the pictures; one seed gives one picture, whatever the others."""
    tiny: Mapping[str, Any]
    """The smallest config; tests run it."""
