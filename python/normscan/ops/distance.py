"""Distance between feature maps, position by position: the score of a reconstruction, the loss of a student."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from normscan import _native
from normscan.errors import ArgumentError
from normscan.ops import border

MOST_SIDE = 2**20
"""Of a map, in pixels: the bytes of any batch of them still fit in 64 bits."""


def distance_map(a: Any, b: Any, *, metric: str, window: int = 11) -> Any:
    """Distance between a and its reference b at every position.

    a, b    [N,C,H,W], float32 or float64; b is the reference (the image, the teacher)
    metric  "l1"           mean_c |a - b|
            "l2"           mean_c (a - b)^2
            "cosine"       0.5 |a/|a| - b/|b||^2 over channels (STFPM, eq. 2)
            "relative_l1"  mean_c |a - b| / mean_{c,p} |b| (PIAD, eq. 4), denominator without gradient
            "ssim"         mean_c (1 - SSIM), data range 1, Gaussian window of `window` taps, sigma 1.5 (Wang 2004)
            "cs"           mean_c (1 - CS): the contrast-structure factor of SSIM, without luminance (Wang 2003)
    returns [N,H,W], dtype of a

    torch tensors are differentiable in a and b; double backward raises. A strided tensor is copied.
    """
    if border.is_torch(a=a, b=b):
        from normscan.ops.autograd.distance import distance_map as torch_distance_map  # loads torch

        return torch_distance_map(a, b, metric, window)
    a = border.features("a", a)
    out = np.empty(a.shape[:1] + a.shape[2:], a.dtype)
    _native.distance(a, border.features("b", b), out, metric=metric, window=window)
    return out


def distance(
    pairs: Sequence[tuple[Any, Any]],
    *,
    metric: str,
    size: tuple[int, int],
    fuse: str = "product",
    weights: Sequence[float] | None = None,
    blur: float = 0.0,
    pool: str = "max",
    parameter: float = 0.0,
) -> tuple[Any, Any]:
    """One anomaly map, and its score, from several levels of features (STFPM, Wang et al. 2021, eqs. 2 to 4).

    pairs      (a, its reference b) of every level, [N,C_l,H_l,W_l], float32 or float64
    metric     of every level, as in `distance_map`; ssim and cs with their default window
    size       (H, W) of the map; a level is brought there bilinearly (align_corners false), without a temporary
    fuse       "product" of the levels, or their "sum"
    weights    of the levels in the sum; default 1 each. A product has none
    blur       sigma in pixels of the map; 0 for none
    pool       "mean", "max", "topk" (share), "quantile" (0..1) or "area" (threshold) with its `parameter`
    returns    map [N,H,W] and score [N], dtype of the pairs

    There is no gradient: a torch tensor that asks for one is an `ArgumentError`; train with `distance_map`.
    """
    if not pairs:
        raise ArgumentError("pairs is empty, expected at least one pair (a, b)")
    factors = [1.0] * len(pairs) if weights is None else [float(w) for w in weights]
    named: dict[str, Any] = {}
    for i, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ArgumentError(f"pairs[{i}] has {len(pair)} tensors, expected two: (a, b)")
        named |= {f"pairs[{i}].{side}": tensor for side, tensor in zip("ab", pair, strict=True)}
    size = _checked(size)
    if border.is_torch(**named):
        from normscan.ops.autograd.distance import distance as torch_distance  # loads torch

        return torch_distance(pairs, metric, size, fuse, factors, blur, pool, parameter)
    levels = [
        (border.features(f"pairs[{i}].a", a), border.features(f"pairs[{i}].b", b)) for i, (a, b) in enumerate(pairs)
    ]
    first = levels[0][0]
    out, score = np.empty((*first.shape[:1], *size), first.dtype), np.empty(first.shape[:1], first.dtype)
    _native.distance_maps(
        levels, out, score, metric=metric, weights=factors, fuse=fuse, sigma=blur, pool=pool, parameter=parameter
    )
    return out, score


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    """Two whole numbers of 1..MOST_SIDE."""
    try:
        height, width = (operator.index(n) for n in size)
    except (TypeError, ValueError):
        raise ArgumentError(f"size is {size!r}, expected two whole numbers: (H, W)") from None
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
        raise ArgumentError(f"size is {size!r}, expected H and W of 1..{MOST_SIDE}")
    return height, width
