"""Hops 2 to 5 of a batch, prepared to restored: on the host, where only the engine may be elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from normscan.deploy.engines import Engine
from normscan.deploy.hops import Hops
from normscan.scoring.scorer import Scorer, prepare


class Prepared(NamedTuple):
    """What threads make of a decoded picture, ahead of the engine."""

    values: np.ndarray
    """The network's input [C,h,w] float32, or the pixels where a GPU prepares them."""
    shape: tuple[int, ...]
    """The picture's height and width."""


class Scored(NamedTuple):
    """What is known of a batch in the end."""

    scores: np.ndarray
    """[N] float64."""
    terms: np.ndarray
    """[N,T] float64."""
    maps: list[np.ndarray]
    """Each [H,W] float32, in its picture's own geometry."""


class Pipeline(Protocol):
    """Takes batches of pictures of any sizes; may be used by many threads."""

    depth: int
    """So many batches should be under way at a time."""

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Pixels [H,W] or [H,W,3], uint8, uint16 or float32, as far as a host thread prepares them."""

    def submit(self, batch: Sequence[Prepared], hops: Hops) -> Callable[[], Scored]:
        """Begin; what is returned waits for the end, and must be called."""


class HostPipeline:
    """Prepares and scores on the CPU; whatever the engine runs on, it is given and gives memory of the host."""

    depth = 1

    def __init__(self, engine: Engine, scorer: Scorer) -> None:
        self._engine, self._scorer = engine, scorer

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """All of it."""
        return Prepared(prepare(pixels, self._scorer.spec.input), pixels.shape[:2])

    def submit(self, batch: Sequence[Prepared], hops: Hops) -> Callable[[], Scored]:
        """It is done when this returns."""
        with hops("engine"):
            outputs = self._engine.run(np.stack([x for x, _ in batch]))
        with hops("score"):
            found = self._scorer.score(outputs)
            maps = [self._scorer.restore(one, shape) for one, (_, shape) in zip(found.maps, batch, strict=True)]
        scored = Scored(found.scores, found.terms, maps)
        return lambda: scored
