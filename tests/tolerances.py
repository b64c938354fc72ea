"""The one table of tolerances: how far a result of each op may lie from the float64 reference, and why.

`rtol` is relative to the expected value, `atol` is in units of the largest expected magnitude of the same array (at
least 1 for forward results, whose natural scale is 1; see `assert_close`). eps is 1.2e-7 (float32), 2.2e-16 (float64).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


class Tolerance(NamedTuple):
    """Bounds of |actual - expected| <= rtol |expected| + atol scale, with the reason for their size."""

    rtol: float
    atol: float
    reason: str


_SUMS = "a few roundings of weights and short sums"
TABLE: dict[tuple[str, str], Tolerance] = {
    ("gaussian", "float32"): Tolerance(
        2e-5, 1e-6, "D <= 111 products summed per row, then squared: sqrt(D) eps, twice"
    ),
    ("gaussian", "float64"): Tolerance(1e-12, 1e-13, "as float32, in units of its eps"),
    ("gaussian_backward", "float32"): Tolerance(2e-5, 2e-6, "signed sums over all positions: relative to the largest"),
    ("gaussian_backward", "float64"): Tolerance(1e-11, 1e-13, "as float32, in units of its eps"),
    ("gaussian_saturated", "float32"): Tolerance(
        3e-5, 1e-12, "as the squared distance, relative however small it is: 1 - e^-u has no cancellation"
    ),
    ("gaussian_saturated", "float64"): Tolerance(1e-12, 1e-30, "as float32, in units of its eps"),
    ("gaussian_mixture", "float32"): Tolerance(
        2e-5, 2e-6, "as gaussian; the log of a sum of exponentials adds their error of 2e-7"
    ),
    ("gaussian_mixture", "float64"): Tolerance(1e-12, 1e-13, "as float32, in units of its eps"),
    ("gaussian_positions", "float32"): Tolerance(2e-5, 1e-6, "as gaussian"),
    ("gaussian_positions", "float64"): Tolerance(1e-12, 1e-13, "as gaussian, in units of its eps"),
    ("gaussian_positions_fit", "float64"): Tolerance(
        1e-8, 1e-8, "a covariance to 1e-12; its inverse factor times its condition, below 1e4 in the tests"
    ),
    ("distance", "float32"): Tolerance(1e-5, 1e-6, "means over channels, unit vectors: a few eps of values of about 1"),
    ("distance", "float64"): Tolerance(1e-12, 1e-13, "as float32, in units of its eps"),
    ("distance_ssim", "float32"): Tolerance(1e-4, 2e-4, "variances E[x^2] - E[x]^2 are off by eps, over C2 = 9e-4"),
    ("distance_ssim", "float64"): Tolerance(1e-10, 1e-11, "as float32, in units of its eps"),
    ("distance_backward", "float32"): Tolerance(2e-5, 2e-6, "one division by a norm or mean more than the forward"),
    ("distance_backward", "float64"): Tolerance(1e-11, 1e-12, "as float32, in units of its eps"),
    ("distance_ssim_backward", "float32"): Tolerance(
        1e-3, 5e-4, "the forward's error in the variances, divided by C2 again"
    ),
    ("distance_ssim_backward", "float64"): Tolerance(1e-9, 1e-10, "as float32, in units of its eps"),
    ("stain", "float32"): Tolerance(2e-7, 1e-12, "in double, rounded once; counts of red pixels are whole numbers"),
    ("stain", "float64"): Tolerance(1e-12, 1e-15, "a difference of residuals of about 1, squared"),
    ("distance_maps", "float32"): Tolerance(
        1e-5, 5e-6, "as distance; its factors and weights are rounded like resample's"
    ),
    ("distance_maps", "float64"): Tolerance(1e-12, 1e-13, "as float32, in units of its eps"),
    ("distance_maps_ssim", "float32"): Tolerance(2e-4, 4e-4, "a product of two levels or more, each as distance_ssim"),
    ("distance_maps_ssim", "float64"): Tolerance(1e-10, 1e-11, "as float32, in units of its eps"),
    ("attention", "float32"): Tolerance(1e-5, 2e-6, "exp turns eps |score| of the scores into a relative error"),
    ("attention", "float64"): Tolerance(1e-12, 1e-13, "as float32, in units of its eps"),
    ("attention", "float16"): Tolerance(6e-4, 1e-5, "sums are float32's; the result is rounded to 2^-11"),
    ("attention", "bfloat16"): Tolerance(4.5e-3, 1e-5, "as float16, rounded to 2^-8 / 2"),
    ("attention_backward", "float16"): Tolerance(
        6e-4, 6e-4, "rounded to 2^-11, and so is `out`, from which rowsum(G out) comes: relative to the largest"
    ),
    ("attention_backward", "bfloat16"): Tolerance(4.5e-3, 4.5e-3, "as float16, in units of its eps"),
    ("attention_tensor_cores", "tf32"): Tolerance(2e-3, 2e-3, "all factors rounded to 2^-11: scores, then exp of them"),
    ("attention_tensor_cores", "float16"): Tolerance(6e-4, 5e-4, "each probability is rounded to 2^-12 of itself"),
    ("attention_tensor_cores", "bfloat16"): Tolerance(4.5e-3, 4e-3, "as float16, to 2^-9"),
    ("attention_tensor_cores_backward", "tf32"): Tolerance(2e-3, 4e-3, "as forward, and dP - rowsum(G out) cancels"),
    ("attention_tensor_cores_backward", "float16"): Tolerance(6e-4, 2e-3, "as forward, `out` and dS are rounded too"),
    ("attention_tensor_cores_backward", "bfloat16"): Tolerance(4.5e-3, 1.6e-2, "as float16, in units of its eps"),
    ("attention_backward", "float32"): Tolerance(5e-5, 5e-6, "dP - rowsum(G out) cancels: relative to the largest"),
    ("attention_backward", "float64"): Tolerance(1e-11, 1e-12, "as float32, in units of its eps"),
    ("prepare", "float32"): Tolerance(1e-5, 5e-6, _SUMS + ", divided by std of about 0.2"),
    ("restore", "float32"): Tolerance(
        1e-5, 5e-6, "positions in float32 are off by eps * side, times the slope of the map"
    ),
    ("resample", "float32"): Tolerance(
        1e-5, 5e-6, "positions in float32 are off by eps * side, times the slope of the map"
    ),
    ("resample", "float64"): Tolerance(1e-12, 1e-13, _SUMS),
    ("smooth", "float32"): Tolerance(1e-5, 1e-6, _SUMS),
    ("smooth", "float64"): Tolerance(1e-12, 1e-13, _SUMS),
    ("pool", "float32"): Tolerance(2e-7, 1e-12, "sums are in double; only the result is rounded to the map's type"),
    ("pool", "float64"): Tolerance(1e-12, 1e-13, "the order of the sum"),
    ("aggregate", "float64"): Tolerance(1e-13, 1e-14, "the order of the sum"),
    ("scorer_maps", "float32"): Tolerance(1e-4, 2e-4, "ssim maps (see distance_ssim) are part of the fused map"),
    ("scorer_terms", "float64"): Tolerance(1e-4, 2e-4, "pooled from float32 maps, which may be ssim maps"),
    ("scorer_scores", "float64"): Tolerance(1e-4, 2e-4, "pooled from float32 maps, which may be ssim maps"),
}


def tolerance(op: str, dtype: DTypeLike) -> dict[str, float]:
    """{"rtol", "atol"} of one op and dtype, for numpy's and torch's assert functions."""
    found = TABLE[op, np.dtype(dtype).name]
    return {"rtol": found.rtol, "atol": found.atol}


def assert_close(
    actual: NDArray[Any], expected: ArrayLike, op: str, scale: ArrayLike | None = None, dtype: str | None = None
) -> None:
    """`actual` (in the dtype under test) equals the float64 reference within the table's bounds; NaN equals NaN.

    numpy has no bfloat16: such results come as float32, and their `dtype` by name.

    A gradient has no natural scale, so its absolute bound is relative to its largest expected magnitude. Where all of
    it may cancel to nothing, `scale` (broadcast to the result) is the magnitude of what cancels.
    """
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{op}: shape {actual.shape}, expected {expected.shape}"
    bounds = TABLE[op, dtype or actual.dtype.name]
    if scale is None:
        smallest = 0.0 if op.endswith("_backward") else 1.0
        scale = np.max(np.abs(expected), initial=smallest, where=np.isfinite(expected))
    absolute = np.broadcast_to(bounds.atol * np.asarray(scale), expected.shape)
    close = np.isclose(actual, expected, rtol=bounds.rtol, atol=absolute, equal_nan=True)
    if not close.all():
        worst = tuple(int(i) for i in np.argwhere(~close)[0])
        raise AssertionError(
            f"{op} {dtype or actual.dtype}: {np.count_nonzero(~close)} of {close.size} values are off; "
            f"the first, at {worst}: found {actual[worst]!r}, expected {expected[worst]!r} within rtol {bounds.rtol}, "
            f"atol {absolute[worst]:.3g} ({bounds.reason})"
        )
