"""Verify: does an engine give torch's scores and decisions?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.layouts import find_images
from normscan.data.read import read_image
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import Engine, open_engine
from normscan.deploy.session import Session, load
from normscan.errors import InputError, ParityError
from normscan.progress import track
from normscan.scoring.scorer import Scorer, prepare

TOLERANCE = 1e-3
"""Largest score error that passes, in standard deviations of the calibration scores: far below anything a decision
rests on, and above the rounding of float32 convolutions summed in another order (measured: 1e-6 to 1e-4)."""
MAP_TOLERANCE = 1e-2
"""Likewise for a value of the map, which no mean smooths (measured: 3e-4)."""
OUTPUT_TOLERANCE = 1e-3
"""Largest difference of a network output, in standard deviations of that output."""


@dataclass(frozen=True)
class Comparison:
    """An engine against recorded or freshly computed torch answers."""

    engine: str
    against: str
    images: int
    score_error: float
    """Largest |difference| of a score, in units of the calibration spread."""
    map_error: float
    """Largest |difference| of a map value, likewise."""
    output_error: float
    """Largest |difference| of a network output, in standard deviations of that output; 0 where none is recorded."""
    flips: int
    """Decisions that differ although the torch score is farther from the threshold than the tolerance."""
    at_threshold: int
    """Decisions that differ within the tolerance."""

    @property
    def passed(self) -> bool:
        """Within tolerance and no decision flipped."""
        close = self.score_error <= TOLERANCE and self.map_error <= MAP_TOLERANCE
        return close and self.output_error <= OUTPUT_TOLERANCE and self.flips == 0


def verify(
    folder: str | Path,
    *,
    engines: Sequence[str] = ("onnxruntime",),
    data: str | Path | None = None,
    run: str | Path | None = None,
) -> list[Comparison]:
    """Replay the golden inputs on each engine, and score `data` with each engine and with torch from `run`.

    Raises `ParityError` with the figures where an engine disagrees.
    """
    bundle = Bundle.open(Path(folder))
    scorer, spread = bundle.scorer(), bundle.manifest["spread"]
    opened = [open_engine(name, bundle) for name in engines]
    found = [_golden(bundle, engine, scorer, spread) for engine in opened]
    if data is not None:
        if run is None:
            raise InputError("verify -i DATA compares with torch, which needs the run folder; name it with --run")
        reference = load(run)
        paths = find_images(data)
        found += [_images(paths, engine, reference, scorer, spread) for engine in opened]
    if failed := [c for c in found if not c.passed]:
        raise ParityError("; ".join(explain(c) for c in failed))
    return found


def explain(comparison: Comparison) -> str:
    """One line for people."""
    c = comparison
    verdict = "agrees" if c.passed else "DISAGREES"
    return (
        f"{c.engine} {verdict} with {c.against} on {c.images} images: score error {c.score_error:.1e} of the "
        f"calibration spread (limit {TOLERANCE:.0e}), map error {c.map_error:.1e} (limit {MAP_TOLERANCE:.0e}), "
        f"output error {c.output_error:.1e} (limit {OUTPUT_TOLERANCE:.0e}), {c.flips} decisions flipped, "
        f"{c.at_threshold} at the threshold"
    )


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain values for --json."""
    return {**asdict(comparison), "passed": comparison.passed, "limit": TOLERANCE}


def _golden(bundle: Bundle, engine: Engine, scorer: Scorer, spread: float) -> Comparison:
    golden = bundle.golden()
    outputs = engine.run(golden["x"])
    # One at a time and together: an engine must not let a picture's neighbours into its score.
    together, alone = scorer.score(outputs), scorer.score(engine.run(golden["x"][:1]))
    expected = golden["score"]
    error = max(_largest(together.scores - expected), _largest(alone.scores - expected[:1]))
    map_error = max(_largest(together.maps - golden["map"]), _largest(alone.maps - golden["map"][:1]))
    output_error = max(
        _largest(value - golden[f"output.{name}"]) / max(float(golden[f"output.{name}"].std()), 1e-12)
        for name, value in outputs.items()
    )
    errors = (error / spread, map_error / spread, output_error)
    return _compare(engine.name, "golden", scorer, spread, together.scores, expected, errors)


def _images(paths: Sequence[Path], engine: Engine, reference: Session, scorer: Scorer, spread: float) -> Comparison:
    scores, expected, map_error = np.empty(len(paths)), np.empty(len(paths)), 0.0
    for i, path in enumerate(track(paths, f"verify {engine.name}", len(paths))):
        x = prepare(read_image(path), scorer.spec.input)[None]
        ours, theirs = scorer.score(engine.run(x)), reference.scorer.score(reference.engine.run(x))
        scores[i], expected[i] = ours.scores[0], theirs.scores[0]
        map_error = max(map_error, _largest(ours.maps - theirs.maps))
    errors = (_largest(scores - expected) / spread, map_error / spread, 0.0)
    return _compare(engine.name, reference.engine.name, scorer, spread, scores, expected, errors)


def _compare(
    engine: str,
    against: str,
    scorer: Scorer,
    spread: float,
    scores: np.ndarray,
    expected: np.ndarray,
    errors: tuple[float, float, float],
) -> Comparison:
    flips = at_threshold = 0
    if (calibration := scorer.spec.calibration) is not None:
        differ = (scores > calibration.threshold) != (expected > calibration.threshold)
        near = np.abs(expected - calibration.threshold) <= TOLERANCE * spread
        flips, at_threshold = int((differ & ~near).sum()), int((differ & near).sum())
    return Comparison(engine, against, len(scores), *errors, flips, at_threshold)


def _largest(error: np.ndarray) -> float:
    """The largest magnitude; a NaN anywhere is an infinite error."""
    return float(np.nan_to_num(np.abs(error), nan=np.inf).max(initial=0.0))
