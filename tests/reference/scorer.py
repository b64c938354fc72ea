"""Network outputs + scoring spec -> anomaly map and score: the slow float64 truth, composed of the other references.

    map_t        the distance, stain, Gaussian or value map of term t at its own resolution (a vector's is one pixel)
    fused        sum_t weight_t R(map_t) / scale_t   or   product_t R(map_t) / scale_t, blurred; R resamples to map.size
    terms[n,t]   pool_t(map_t), before scale and weight; where pool_at is "image" pool_t is always the mean
    scores[n]    sum_t weight_t terms[n,t] / scale_t   or   pool(fused, blurred map)

An image with a value that is not finite in any output that a term reads has the score NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.distance import distance
from reference.gaussian import gaussian, gaussian_mixture, gaussian_positions
from reference.pool import pool
from reference.resample import resample
from reference.smooth import smooth
from reference.stain import stain

Array = NDArray[np.float64]

STAIN = ("metric", "cut", "hue", "least_saturation", "window")


class Scored(NamedTuple):
    """maps [N,h,w], terms [N,T], scores [N]."""

    maps: Array
    terms: Array
    scores: Array


def _term_map(term: Mapping[str, Any], outputs: Mapping[str, Array], stats: Mapping[str, ArrayLike]) -> Array:
    """One term -> its map [N,H,W]."""
    tensors = [outputs[name] for name in term["of"]]
    if term["op"] == "distance":
        return distance(*tensors, metric=term["metric"], window=term.get("window", 11))
    if term["op"] == "stain":
        return stain(*tensors, **{key: term[key] for key in STAIN if key in term})
    if term["op"] == "value":
        return tensors[0].reshape(len(tensors[0]), *(tensors[0].shape[2:] or (1, 1)))
    statistics = [stats[f"{term['stats']}.{name}"] for name in ("mean", "whitener")]
    if term["op"] == "gaussian_mixture":
        found = gaussian_mixture(tensors[0], *statistics, stats[f"{term['stats']}.log_weights"])
    else:
        measure = gaussian_positions if term["per"] == "position" else gaussian
        options = {"output": term.get("output", "squared_distance"), "saturation": term.get("saturation", 1.0)}
        found = measure(tensors[0], *statistics, **options)
    return found.reshape(-1, 1, 1) if term["per"] == "vector" else found


def _pooled(map_: Array, rule: str | Mapping[str, float]) -> Array:
    if isinstance(rule, str):
        return pool(map_, method=rule)
    ((method, parameter),) = rule.items()
    return pool(map_, method=method, parameter=parameter)


def score(spec: Mapping[str, Any], stats: Mapping[str, ArrayLike], outputs: Mapping[str, ArrayLike]) -> Scored:
    """spec as parsed from JSON (defaults may be absent); outputs [N,...] by name."""
    tensors = {name: np.asarray(value, np.float64) for name, value in outputs.items()}
    terms = spec["terms"]
    weights = np.array([term.get("weight", 1.0) for term in terms], np.float64)
    scales = np.array([term.get("scale") or 1.0 for term in terms], np.float64)
    maps = [_term_map(term, tensors, stats) for term in terms]

    size = spec.get("map", {}).get("size", "input")
    size = (spec["input"]["height"], spec["input"]["width"]) if size == "input" else tuple(size)
    resampled = np.stack([resample(map_, size) for map_ in maps]) / scales[:, None, None, None]
    fused = resampled.prod(axis=0) if spec.get("fuse") == "product" else np.tensordot(weights, resampled, axes=1)
    fused = smooth(fused, sigma=spec.get("map", {}).get("blur_sigma", 0.0))

    pooled = np.stack([_pooled(map_, term.get("pool", "mean")) for map_, term in zip(maps, terms, strict=True)], axis=1)
    scores = _pooled(fused, spec["pool"]) if spec["pool_at"] == "image" else pooled @ (weights / scales)
    for term in terms:
        for name in term["of"]:
            finite = np.isfinite(tensors[name]).reshape(len(scores), -1).all(axis=1)
            scores = np.where(finite, scores, np.nan)
    return Scored(fused, pooled, scores)
