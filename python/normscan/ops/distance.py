"""Distance between two feature maps, position by position: the score of a reconstruction, the loss of a student."""

from __future__ import annotations

from typing import Any

import numpy as np

from normscan import _native
from normscan.ops import border


def distance_map(a: Any, b: Any, *, metric: str, window: int = 11) -> Any:
    """Distance between a and its reference b at every position.

    a, b    [N,C,H,W], float32 or float64; b is the reference (the image, the teacher)
    metric  "l1"           mean_c |a - b|
            "l2"           mean_c (a - b)^2
            "cosine"       0.5 |a/|a| - b/|b||^2 over channels (STFPM, eq. 2)
            "relative_l1"  mean_c |a - b| / mean_{c,p} |b| (PIAD, eq. 4), denominator without gradient
            "ssim"         mean_c (1 - SSIM), data range 1, Gaussian window of `window` taps, sigma 1.5 (Wang 2004)
    returns [N,H,W], dtype of a

    torch tensors are differentiable in a and b; double backward raises. A strided tensor is copied.
    """
    if border.is_torch(a, b):
        from normscan.ops.autograd.distance import distance_map as torch_distance_map  # loads torch

        return torch_distance_map(a, b, metric, window)
    a = border.floating("a", a)
    out = np.empty(a.shape[:1] + a.shape[2:], a.dtype)
    _native.distance(a, border.floating("b", b), out, metric=metric, window=window)
    return out
