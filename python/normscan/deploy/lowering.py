"""From a network in float32 to one in 16 or 8 bits that is accepted, and which layers that takes in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from normscan.deploy.acceptance import Acceptance, Truth
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import Engine, open_engine
from normscan.deploy.precision import at_precision, lowered_products
from normscan.errors import ParityError
from normscan.progress import say, track

SHOWN = 8
"""So many layers an error names."""
PROBES = 32
"""Pictures that a layer's sensitivity is measured on."""


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
    calibration: Sequence[np.ndarray],
    keep: Sequence[str] = (),
    auto: bool = False,
) -> Lowered:
    """Lower a bundle's network, of float32, and judge it on `engine` by what `truth` says of validation pictures.

    Refused, it is a `ParityError` that names the layers that err most alone; `auto` keeps ever more of these in float32
    until it is accepted.
    """

    def judged(kept: Sequence[str], asked: Truth) -> Lowered:
        model = at_precision(bundle.model, precision, keep=kept, calibration=calibration)
        return Lowered(model, tuple(kept), asked.judge(opened(bundle, model, engine), bundle.scorer(), precision))

    found = judged(keep, truth)
    if found.acceptance.passed:
        return found
    ranked = _by_sensitivity(bundle, precision, judged, truth.first(PROBES), keep)
    if not auto:
        names = ", ".join(ranked[:SHOWN])
        raise ParityError(
            f"{found.acceptance.explain()}; keep the layers that err most in float32, a --keep NAME each, or leave it "
            f"to --auto: {names}"
        )
    count = 1
    while True:
        kept = [*keep, *ranked[:count]]
        found = judged(kept, truth)
        say(f"{len(kept)} layers in float32: {found.acceptance.explain()}")
        if found.acceptance.passed:
            return found
        if count >= len(ranked):
            raise ParityError(f"with every layer in float32 still {found.acceptance.explain()}")
        count = min(2 * count, len(ranked))


def opened(bundle: Bundle, model: bytes, engine: str) -> Engine:
    """An engine with another network in the bundle's place, on the CPU."""
    return open_engine(engine, replace(bundle, files={**bundle.files, "model.onnx": model}), device="cpu")


def _by_sensitivity(
    bundle: Bundle,
    precision: str,
    judged: Callable[[Sequence[str], Truth], Lowered],
    probes: Truth,
    keep: Sequence[str],
) -> list[str]:
    """The layers that are not kept yet, by the score error of a network in which each alone is lowered."""
    every = lowered_products(bundle.model, precision)
    left = [name for name in every if name not in keep]
    errors = {
        name: judged([other for other in every if other != name], probes).acceptance.score_error
        for name in track(left, "sensitivity", len(left), unit="layers")
    }
    return sorted(left, key=lambda name: -errors[name])
