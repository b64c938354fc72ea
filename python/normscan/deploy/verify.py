"""Verify: does an engine give torch's scores and decisions?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.layouts import find_images, read_layout
from normscan.data.read import read_image
from normscan.data.sample import Record
from normscan.deploy.acceptance import Acceptance, Example, Truth
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import Engine, available_engines, open_engine
from normscan.deploy.session import Session, load
from normscan.errors import InputError, ParityError, UsageError
from normscan.progress import track
from normscan.scoring.scorer import Scorer, prepare

LIMITS = (1e-3, 1e-2, 1e-3)
"""Largest errors that pass in float32: of a score and of a map value, in standard deviations of the calibration scores,
and of a network output, in standard deviations of that output. Far below anything a decision rests on, and above the
rounding of float32 convolutions summed in another order (measured: scores 1e-6 to 1e-4, maps 3e-4)."""
_NEEDS_TORCH = "torch"
"""Opens runs, not bundles."""


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
    limits: tuple[float, float, float] = LIMITS
    """Of the three errors."""

    @property
    def errors(self) -> tuple[float, float, float]:
        """Of scores, maps, outputs."""
        return self.score_error, self.map_error, self.output_error

    @property
    def passed(self) -> bool:
        """Within tolerance and no decision flipped."""
        return all(e <= limit for e, limit in zip(self.errors, self.limits, strict=True)) and self.flips == 0

    def explain(self) -> str:
        """One line for people."""
        names = ("score error", "map error", "output error")
        told = [f"{n} {e:.1e} (limit {m:.0e})" for n, e, m in zip(names, self.errors, self.limits, strict=True)]
        return (
            f"{self.engine} {'agrees' if self.passed else 'DISAGREES'} with {self.against} on {self.images} images, in "
            f"units of the calibration spread: {', '.join(told)}, {self.flips} decisions flipped, "
            f"{self.at_threshold} at the threshold"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for --json."""
        return {**asdict(self), "passed": self.passed}


def verify(
    folder: str | Path,
    *,
    engines: Sequence[str] | None = None,
    data: str | Path | None = None,
    run: str | Path | None = None,
    device: str = "auto",
) -> list[Comparison | Acceptance]:
    """Replay the golden inputs on each engine (default: all here), and score `data` with torch, from `run`, too.

    A data folder with labelled test pictures of both kinds gives the difference of the AUROCs besides. A network in 16
    or 8 bits is held to the errors that it had when it was accepted, and on `data` to the rule of `acceptance`.
    On another engine than the one that accepted it, that rule alone counts. Torch computes on the CPU.
    Raises `ParityError` with the figures where an engine disagrees.
    """
    bundle = Bundle.open(Path(folder))
    names = bundle_engines(bundle) if engines is None else engines
    opened = [open_engine(name, bundle, device=device) for name in names]
    strange = bundle.precision != "fp32" and data is not None
    replayed = [engine for engine in opened if not (strange and engine.name != bundle.engine)]
    found: list[Comparison | Acceptance] = [golden_comparison(bundle, engine) for engine in replayed]
    if data is not None:
        if run is None:
            raise InputError("verify -i DATA compares with torch, which needs the run folder; name it with --run")
        reference = load(run, device="cpu")
        labelled = _labelled(Path(data))
        if bundle.precision == "fp32":
            found += [_images(find_images(data), engine, reference, bundle) for engine in opened]
        elif not labelled:
            raise InputError(
                f"{data} has no labelled test pictures of both kinds; a {bundle.precision} network needs some"
            )
        if labelled:
            examples = partial(_examples, labelled, reference)
            truth = Truth.of(reference.engine, reference.scorer, reference.spread, examples)
            found += [truth.judge(engine, bundle.scorer(), bundle.precision) for engine in opened]
    if failed := [c for c in found if not c.passed]:
        raise ParityError("; ".join(c.explain() for c in failed))
    return found


def bundle_engines(bundle: Bundle) -> list[str]:
    """The engines here that can run a bundle; of one that was lowered, the one that it was accepted on."""
    here = [name for name, there in available_engines().items() if there and name != _NEEDS_TORCH]
    if bundle.manifest["precision"].get("accepted") is None:
        return here
    if bundle.engine not in here:
        raise UsageError(
            f"{bundle.folder}: its {bundle.precision} network was accepted on {bundle.engine}, which is not installed "
            "here; install it, or judge it on another engine with -i DATA --run RUN --engine NAME"
        )
    return [bundle.engine]


def golden_comparison(bundle: Bundle, engine: Engine) -> Comparison:
    """An engine against the bundle's recorded answers, within the bundle's limits."""
    scorer, spread, limits = bundle.scorer(), bundle.manifest["spread"], tuple(bundle.manifest["precision"]["limits"])
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
    return _compare(engine.name, "golden", scorer, spread, together.scores, expected, errors, limits)


def _images(paths: Sequence[Path], engine: Engine, reference: Session, bundle: Bundle) -> Comparison:
    scorer, spread = bundle.scorer(), bundle.manifest["spread"]
    scores, expected, map_error = np.empty(len(paths)), np.empty(len(paths)), 0.0
    for i, path in enumerate(track(paths, f"verify {engine.name}", len(paths))):
        x = prepare(read_image(path), scorer.spec.input)[None]
        ours, theirs = scorer.score(engine.run(x)), reference.scorer.score(reference.engine.run(x))
        scores[i], expected[i] = ours.scores[0], theirs.scores[0]
        map_error = max(map_error, _largest(ours.maps - theirs.maps))
    errors = (_largest(scores - expected) / spread, map_error / spread, 0.0)
    return _compare(engine.name, reference.engine.name, scorer, spread, scores, expected, errors)


def _labelled(data: Path) -> list[Record]:
    """Test pictures of a data folder, where both kinds have two at least."""
    if not (data.is_dir() and any((data / name).exists() for name in ("test", "test_normal.txt", "data.json"))):
        return []
    found = [r for r in read_layout(data, training=False) if r.split == "test" and r.label is not None]
    enough = all(sum(r.label == label for r in found) > 1 for label in (0, 1))
    return found if enough else []


def _examples(records: Sequence[Record], reference: Session) -> Iterator[Example]:
    size = reference.scorer.spec.input
    for record in track(records, "read", len(records)):
        yield prepare(read_image(record.path), size)[None], np.array([record.label])


def _compare(
    engine: str,
    against: str,
    scorer: Scorer,
    spread: float,
    scores: np.ndarray,
    expected: np.ndarray,
    errors: tuple[float, float, float],
    limits: tuple[float, float, float] = LIMITS,
) -> Comparison:
    flips = at_threshold = 0
    if (calibration := scorer.spec.calibration) is not None:
        differ = (scores > calibration.threshold) != (expected > calibration.threshold)
        near = np.abs(expected - calibration.threshold) <= limits[0] * spread
        flips, at_threshold = int((differ & ~near).sum()), int((differ & near).sum())
    return Comparison(engine, against, len(scores), *errors, flips, at_threshold, limits)


def _largest(error: np.ndarray) -> float:
    """The largest magnitude; a NaN anywhere is an infinite error."""
    return float(np.nan_to_num(np.abs(error), nan=np.inf).max(initial=0.0))
