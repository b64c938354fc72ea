"""From a network in float32 to one in 16 or 8 bits that is accepted, and which layers that takes in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from normscan.deploy.acceptance import Acceptance, Truth
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import Engine, open_engine
from normscan.deploy.precision import at_precision, lowered_products
from normscan.deploy.quantisation import ranges
from normscan.errors import ParityError
from normscan.progress import say, track
from normscan.scoring.scorer import Scorer

SHOWN = 8
"""So many layers an error names."""
PROBES = 32
"""Normal pictures that a layer's sensitivity is measured on."""


class Lowered(NamedTuple):
    """An accepted network."""

    model: bytes
    kept: tuple[str, ...]
    """Products that stay float32."""
    acceptance: Acceptance


def lowered(
    bundle: Bundle,
    precision: str,
    truth: Truth,
    *,
    engine: str,
    calibration: Callable[[], Iterable[np.ndarray]],
    keep: Sequence[str] = (),
    auto: bool = False,
) -> Lowered:
    """Lower a bundle's network, of float32, and judge it on `engine` by what `truth` says of validation pictures.

    calibration  batches x [N,C,H,W] of training normals, for int8

    Refused, it is a `ParityError` that names the layers that err most alone; `auto` keeps ever more of these in float32
    until it is accepted.
    """
    found_ranges = None
    if precision == "int8":
        found_ranges = ranges(bundle.model, calibration(), inputs=bundle.spec.input.largest)

    def network(kept: Sequence[str]) -> tuple[bytes, Engine]:
        model = at_precision(bundle.model, precision, keep=kept, ranges=found_ranges)
        return model, opened(bundle, model, engine)

    def judged(kept: Sequence[str]) -> Lowered:
        model, judge = network(kept)
        return Lowered(model, tuple(kept), truth.judge(judge, bundle.scorer(), precision))

    found = judged(keep)
    if found.acceptance.passed:
        return found
    every = lowered_products(bundle.model, precision)
    left = [name for name in every if name not in keep]
    ranked = _by_error(left, lambda alone: network([n for n in every if n != alone])[1], bundle.scorer(), truth)
    if not auto:
        names = ", ".join(ranked[:SHOWN])
        raise ParityError(
            f"{found.acceptance.explain()}; keep the layers that err most in float32, a --keep NAME each, or leave it "
            f"to --auto: {names}"
        )
    count = 1
    while True:
        kept = [*keep, *ranked[:count]]
        found = judged(kept)
        say(f"{len(kept)} layers in float32: {found.acceptance.explain()}")
        if found.acceptance.passed:
            return found
        if count >= len(ranked):
            raise ParityError(f"with every layer in float32 still {found.acceptance.explain()}")
        count = min(2 * count, len(ranked))


def opened(bundle: Bundle, model: bytes, engine: str) -> Engine:
    """An engine with another network in the bundle's place, on the CPU."""
    return open_engine(engine, replace(bundle, files={**bundle.files, "model.onnx": model}), device="cpu")


def _by_error(layers: Sequence[str], lowered_alone: Callable[[str], Engine], scorer: Scorer, truth: Truth) -> list[str]:
    """The layers, by the error that each alone brings to the scores of normals: by these the threshold stands."""
    probes = truth.normals(PROBES)

    def error(layer: str) -> float:
        off = probes.scored(lowered_alone(layer), scorer) - probes.scores
        return float(np.nan_to_num(np.square(off).mean(), nan=np.inf))

    errors = {layer: error(layer) for layer in track(layers, "sensitivity", len(layers), unit="layers")}
    return sorted(layers, key=lambda layer: -errors[layer])
