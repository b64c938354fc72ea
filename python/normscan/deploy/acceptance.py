"""May a network in 16 or 8 bits take the place of the one in 32? Its decisions and ranking of pictures tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from normscan.deploy.engines import Engine
from normscan.scoring.metrics import auroc
from normscan.scoring.paired import compare_aurocs
from normscan.scoring.scorer import Scorer

MOST_DIFFERENCE = 0.005
"""Of the AUROC, either way."""
MOST_FLIPS = 0.005
"""Share of the pictures whose decision may differ."""

Example = tuple[np.ndarray, np.ndarray]
"""Prepared pictures x [N,C,H,W] and their labels [N]: 0 normal, 1 planted or known to be abnormal."""


@dataclass(frozen=True)
class Acceptance:
    """An engine at a precision against float32, on labelled pictures."""

    engine: str
    precision: str
    images: int
    auroc: float
    auroc_difference: float
    """Of the engine, less that of float32."""
    auroc_difference_ci: tuple[float, float]
    """95 %, paired (DeLong)."""
    flips: int
    """Decisions that differ."""
    score_error: float
    """Largest |difference| of a score, in units of the calibration spread."""

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        finite = bool(np.isfinite(self.score_error))
        return finite and abs(self.auroc_difference) <= MOST_DIFFERENCE and self.flips <= MOST_FLIPS * self.images

    def explain(self) -> str:
        """One line for people."""
        low, high = self.auroc_difference_ci
        return (
            f"{self.engine} in {self.precision} is {'accepted' if self.passed else 'REFUSED'} on {self.images} "
            f"labelled pictures: AUROC {self.auroc:.4f}, {self.auroc_difference:+.4f} ({low:+.4f} to {high:+.4f}; "
            f"limit {MOST_DIFFERENCE}), {self.flips} decisions differ (limit {MOST_FLIPS * self.images:.1f}), score "
            f"error up to {self.score_error:.2g} of the calibration spread"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest and --json."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Truth:
    """What float32 says of labelled pictures; these are read again for every engine that is judged."""

    examples: Callable[[], Iterable[Example]]
    """Gives the same ones, in the same order, every time."""
    labels: np.ndarray
    scores: np.ndarray
    spread: float
    """Of the calibration scores: the unit of an error."""

    @classmethod
    def of(cls, engine: Engine, scorer: Scorer, spread: float, examples: Callable[[], Iterable[Example]]) -> Truth:
        """Score the examples with the engine that the others are compared with."""
        found = [(labels, scorer.score(engine.run(x)).scores) for x, labels in examples()]
        labels, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return cls(examples, labels, scores, spread)

    def normals(self, count: int) -> Truth:
        """The first normal ones, `count` at most, kept in memory."""
        chosen = np.flatnonzero(self.labels == 0)[:count]
        kept: list[Example] = []
        left = len(chosen)
        for x, labels in self.examples():
            kept.append((x[labels == 0][:left], labels[labels == 0][:left]))
            left -= len(kept[-1][0])
            if not left:
                break
        return Truth(lambda: kept, self.labels[chosen], self.scores[chosen], self.spread)

    def scored(self, engine: Engine, scorer: Scorer) -> np.ndarray:
        """What another engine makes of the same pictures: scores [N]."""
        return np.concatenate([scorer.score(engine.run(x)).scores for x, _ in self.examples()])

    def judge(self, engine: Engine, scorer: Scorer, precision: str) -> Acceptance:
        """Compare an engine with it."""
        scores = self.scored(engine, scorer)
        if not np.isfinite(scores).all():  # values beyond the range of 16 bits
            nowhere = (float("nan"), float("nan"))
            return Acceptance(engine.name, precision, len(scores), *nowhere, nowhere, len(scores), float("inf"))
        paired = compare_aurocs(self.labels, self.scores, scores)
        calibration = scorer.spec.calibration
        flips = 0
        if calibration is not None:
            flips = int(((scores > calibration.threshold) != (self.scores > calibration.threshold)).sum())
        return Acceptance(
            engine.name,
            precision,
            len(scores),
            auroc(self.labels, scores),
            paired.difference,
            paired.interval,
            flips,
            float(np.abs(scores - self.scores).max()) / self.spread,
        )
