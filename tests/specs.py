"""Scoring specs of every shape, and the statistics and outputs that they read, for the scorers of CPU and GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from arrays import Array, normal, uniform

Spec = dict[str, Any]
INPUT: Spec = {"height": 24, "width": 32, "channels": 3, "resize": "fit", "mean": [0, 0, 0], "std": [1, 1, 1]}
SSIM: Spec = {"op": "distance", "of": ["reconstruction", "image"], "metric": "ssim", "scale": 0.03, "weight": 0.4}
L1: Spec = {"op": "distance", "of": ["reconstruction", "image"], "metric": "l1", "weight": 0.25}
STAIN: Spec = {"op": "stain", "of": ["reconstruction", "image"], "metric": "residual"}
RED: Spec = STAIN | {"metric": "red_ratio", "hue": [340, 30], "least_saturation": 0.1}
LATENT: Spec = {"op": "gaussian", "of": ["latent"], "stats": "latent", "form": "full", "per": "position_shared"}
POSITION: Spec = LATENT | {"stats": "place", "per": "position"}
MIXTURE: Spec = LATENT | {"op": "gaussian_mixture", "stats": "mixed"}
SATURATED: Spec = {"output": "saturated", "saturation": 5.5}
LEVELS: list[Spec] = [{"op": "distance", "of": [f"student_{k}", f"teacher_{k}"], "metric": "cosine"} for k in (1, 2)]
VALUE: Spec = {"op": "value", "of": ["values"], "per": "position"}
PROBABILITY: Spec = {"op": "value", "of": ["probability"], "per": "vector"}
VECTOR: Spec = {
    "op": "gaussian",
    "of": ["vector"],
    "stats": "vector",
    "form": "diagonal",
    "per": "vector",
    "scale": 7.5,
}


def spec_of(*terms: Spec, **top: Any) -> Spec:
    fields = {"fuse": "sum", "pool_at": "term", "map": {"size": "input", "blur_sigma": 0.0}}
    return {"schema": 1, "family": "test", "input": INPUT, "terms": list(terms), **fields, **top}


def at_image(*terms: Spec, pool: object = "max", **top: Any) -> Spec:
    return spec_of(*terms, pool_at="image", pool=pool, **top)


SPECS: dict[str, Spec] = {
    "one distance": spec_of({"op": "distance", "of": ["reconstruction", "image"], "metric": "l2"}),
    "ocad": spec_of(SSIM, L1 | {"pool": "max"}, {**LATENT, "scale": 11.4, "weight": 0.5}),
    "ocad at the image": at_image(SSIM, L1, {**LATENT, "scale": 11.4}, pool={"topk": 0.05}),
    "stfpm": at_image(*LEVELS, fuse="product", map={"size": "input", "blur_sigma": 2.0}),
    "stfpm summed, largest area": at_image(*LEVELS, pool={"area": 0.9}, map={"size": [40, 20], "blur_sigma": 1.0}),
    "sepiad": spec_of(*({**level, "metric": "relative_l1", "pool": {"quantile": 0.9}} for level in LEVELS)),
    "a vector": spec_of(VECTOR),
    "a vector and a map": spec_of(VECTOR, {**L1, "pool": {"area": 0.5}}, {**LATENT, "pool": {"topk": 0.1}}),
    "a vector times a map": at_image(VECTOR, L1 | {"weight": 1}, fuse="product", pool="mean"),
    "padim": at_image(POSITION, pool="max", map={"size": "input", "blur_sigma": 4.0}),
    "positions and a vector": spec_of(VECTOR, POSITION | {"scale": 3.5, "pool": {"topk": 0.1}}),
    "saturated, and a likelihood": spec_of(LATENT | SATURATED, LATENT | {"output": "nll"}),
    "positions, likely": at_image(POSITION | {"output": "nll"}, POSITION | SATURATED, pool="mean"),
    "a mixture": spec_of(MIXTURE, MIXTURE | {"form": "diagonal", "stats": "spread"}),
    "a mixture of vectors": spec_of(
        VECTOR | {"op": "gaussian_mixture", "form": "isotropic", "stats": "round"}, VECTOR | {"output": "nll"}
    ),
    "a probability": spec_of(PROBABILITY),
    "values that are a map, and a probability": spec_of(
        VALUE | {"pool": {"topk": 0.1}, "scale": 0.3, "weight": 2}, PROBABILITY | {"weight": 0.5}, SSIM
    ),
    "maps that the network compares": at_image(VALUE, VALUE, LEVELS[1], fuse="product"),
    "a small map": spec_of(SSIM, map={"size": [5, 7], "blur_sigma": 3.0}),
    "a term without weight": spec_of(SSIM, L1 | {"weight": 0}),
    "contrast and structure": spec_of(SSIM | {"metric": "cs", "window": 7}),
    "a stain and its red pixels": spec_of(STAIN | {"cut": 0.3}, RED, RED | {"window": 7, "pool": "max"}, SSIM),
    "window 3": at_image(SSIM | {"window": 3, "scale": None}, pool="mean"),
}


def stats_of(dtype: str = "float32") -> dict[str, Array]:
    return {
        "latent.mean": normal(6, dtype=dtype, seed=9),
        "latent.whitener": np.tril(normal(6, 6, dtype=dtype, seed=8)) + 2 * np.eye(6, dtype=dtype),
        "place.mean": normal(6, 3, 4, dtype=dtype, seed=11),
        "place.whitener": np.tril(normal(3, 4, 6, 6, dtype=dtype, seed=12)),
        "mixed.mean": normal(3, 6, dtype=dtype, seed=13),
        "mixed.whitener": np.tril(normal(3, 6, 6, dtype=dtype, seed=14)) + 2 * np.eye(6, dtype=dtype),
        "mixed.log_weights": np.log(np.array([0.5, 0.3, 0.2], dtype)),
        "spread.mean": normal(2, 6, dtype=dtype, seed=15),
        "spread.whitener": 0.5 + uniform(2, 6, dtype=dtype, seed=16),
        "spread.log_weights": np.log(np.array([0.6, 0.4], dtype)),
        "round.mean": normal(2, 19, dtype=dtype, seed=17),
        "round.whitener": 0.5 + uniform(2, 1, dtype=dtype, seed=18),
        "round.log_weights": np.log(np.array([0.6, 0.4], dtype)),
        "vector.mean": normal(19, dtype=dtype, seed=7),
        "vector.whitener": 0.5 + uniform(19, dtype=dtype, seed=6),
    }


def outputs_of(images: int) -> dict[str, Array]:
    """Every output that any of the specs reads."""
    return {
        "image": uniform(images, 3, 24, 32, seed=1),
        "reconstruction": uniform(images, 3, 24, 32, seed=2),
        "latent": normal(images, 6, 3, 4, seed=3),
        "vector": normal(images, 19, seed=4),
        "values": normal(images, 1, 9, 11, seed=19),
        "probability": uniform(images, 1, seed=20),
        "student_1": normal(images, 8, 12, 16, seed=5),
        "teacher_1": normal(images, 8, 12, 16, seed=6),
        "student_2": normal(images, 16, 6, 8, seed=7),
        "teacher_2": normal(images, 16, 6, 8, seed=8),
    }
