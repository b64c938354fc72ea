"""Hops 2 and 4 to 6 of an image's way, for training, evaluation and serving alike: the face of the native core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normscan import _native
from normscan.errors import ArgumentError, ImageError
from normscan.scoring.spec import Input, ScoringSpec


@dataclass(frozen=True)
class Scores:
    """What the native scorer says of a batch."""

    maps: np.ndarray
    """[N,h,w] float32: the fused map, in the network's input geometry unless the spec says otherwise."""
    terms: np.ndarray
    """[N,T] float64: each term's pooled value, before its scale and weight."""
    scores: np.ndarray
    """[N] float64: higher is more anomalous."""


def prepare(pixels: np.ndarray, size: Input) -> np.ndarray:
    """Decoded pixels [H,W] or [H,W,3], uint8, uint16 or float32  ->  the network's input x [C,h,w] float32.

    Pixels with other strides are copied first: the native border takes contiguous rows only.
    """
    x = np.empty((size.channels, size.height, size.width), np.float32)
    _native.prepare(np.ascontiguousarray(pixels), x, resize=size.resize, mean=list(size.mean), std=list(size.std))
    return x


class Scorer:
    """A spec with its statistics, ready to run.

    stats  "<name>.mean" [D] and "<name>.whitener" [1], [D] or [D,D] for each Gaussian term; per "position" [C,H,W] and
           [H,W,C,C] or packed [H,W,C(C+1)/2]
    """

    def __init__(self, spec: ScoringSpec, stats: Mapping[str, np.ndarray]) -> None:
        self.spec = spec
        self.stats = dict(stats)
        self._native = _native.Scorer(spec.native(), self.stats)

    def score(self, outputs: Mapping[str, Any]) -> Scores:
        """Named network outputs (float32, numpy or torch, batch first) -> maps, terms and scores."""
        return Scores(*self._native.score(dict(outputs)))

    def restore(self, anomaly_map: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """One map [h,w] back in the picture's own geometry [H,W]; areas that were cropped away are 0."""
        out = np.empty(tuple(shape[:2]), np.float32)
        _native.restore(anomaly_map, out, resize=self.spec.input.resize)
        return out

    def decide(self, score: float) -> bool | None:
        """True (anomalous) where score > threshold; None without calibration. A NaN is an error, never a decision."""
        if not np.isfinite(score):
            raise ImageError(f"the score is {score}, expected a finite number: the network's outputs are not finite")
        calibration = self.spec.calibration
        return None if calibration is None else bool(score > calibration.threshold)

    def group(self, scores: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
        """One score for each group (patient, lesion), by the spec's rule."""
        if (group := self.spec.group) is None:
            raise ArgumentError("the spec has no group rule, expected one in spec.group, as {'pool': 'max'}")
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        out = np.empty(len(names), np.float64)
        scores = np.asarray(scores, np.float64)
        method, parameter = group.rule
        _native.aggregate(scores, index.astype(np.int64), out, method=method, parameter=parameter)
        return dict(zip(names.tolist(), out.tolist(), strict=True))
