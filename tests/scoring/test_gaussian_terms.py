"""Gaussian terms of a spec: their outputs, and mixtures with their statistics. Their scores: test_scorer.py."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from arrays import Array
from normscan import _native
from normscan.errors import ArgumentError, ConfigError
from normscan.scoring.spec import Term

Spec = dict[str, Any]

GAUSSIAN: Spec = {"op": "gaussian", "of": ["latent"], "stats": "mixed", "form": "full", "per": "position_shared"}
DEFAULTS: Spec = {"pool": "mean", "scale": None, "weight": 1}
INPUT: Spec = {"height": 24, "width": 32, "channels": 3, "resize": "fit", "mean": [0, 0, 0], "std": [1, 1, 1]}
STATS: dict[str, Array] = {
    "mixed.mean": np.zeros((3, 6), np.float32),
    "mixed.whitener": np.ones((3, 6, 6), np.float32),
    "mixed.log_weights": np.zeros(3, np.float32),
}


def spec_of(*terms: Spec) -> str:
    return json.dumps({"schema": 1, "family": "test", "input": INPUT, "terms": terms})


def mixture_of(stats: dict[str, Array]) -> _native.Scorer:
    return _native.Scorer(_native.ScoringSpec(spec_of({**GAUSSIAN, "op": "gaussian_mixture"})), stats)


def test_a_saturated_term_and_a_mixture_are_kept() -> None:
    saturated = {**GAUSSIAN, **DEFAULTS, "output": "saturated", "saturation": 7.5}
    mixture = {**GAUSSIAN, "op": "gaussian_mixture", **DEFAULTS}
    assert json.loads(_native.ScoringSpec(spec_of(saturated, mixture)).json())["terms"] == [saturated, mixture]


@pytest.mark.parametrize(
    ("changes", "path", "shown"),
    [
        ({"output": "saturated"}, "terms[0].saturation", "number"),
        ({"output": "saturated", "saturation": 0}, "terms[0].saturation", "> 0"),
        ({"output": "saturated", "saturation": None}, "terms[0].saturation", "null"),
        ({"output": "nll", "saturation": 1}, "terms[0].saturation", "saturated only"),
        ({"saturation": 1}, "terms[0].saturation", "saturated only"),
        ({"output": "likelihood"}, "terms[0].output", "squared_distance"),
        ({"op": "gaussian_mixture", "output": "nll"}, "terms[0].output", "is not a field"),
        ({"op": "gaussian_mixture", "per": "position"}, "terms[0].per", "position_shared"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(changes: Spec, path: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _native.ScoringSpec(spec_of({**GAUSSIAN, **changes}))
    assert path in str(caught.value)
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mean", (6,), r"\[6\], expected \[K,D\] for a mixture"),
        ("mean", (0, 6), r"empty.*\[0,6\]"),
        ("mean", (2, 6), r"log_weights has shape \[3\].*\[2\]"),
        ("whitener", (3, 6), r"\[3,6\], expected \[K,D,D\] .*\[3,6,6\]"),
        ("log_weights", (2,), r"\[2\], expected \[K\] .*\[3\]"),
    ],
)
def test_mixture_statistics_of_a_wrong_shape_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=r"mixed\.") as caught:
        mixture_of(STATS | {f"mixed.{name}": np.ones(shape, np.float32)})
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize("name", ["mean", "whitener", "log_weights"])
def test_missing_mixture_statistics_are_named(name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"mixed\.{name}.* is missing"):
        mixture_of({key: value for key, value in STATS.items() if key != f"mixed.{name}"})


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"op": "distance", "metric": "ssim"}, "ssim"),
        ({"op": "gaussian", "form": "full"}, "full"),
        ({"op": "gaussian", "form": "full", "output": "squared_distance"}, "full"),
        ({"op": "gaussian", "form": "diagonal", "output": "nll"}, "diagonal, nll"),
        ({"op": "gaussian_mixture", "form": "full"}, "full"),
    ],
)
def test_what_people_read_of_a_term(options: Spec, kind: str) -> None:
    assert Term(of=("latent",), **options).kind == kind
