"""The native core on the CPU. Semantics: csrc/include/normscan/ops.hpp, spec.hpp and scorer.hpp.

A tensor is any object with ``__dlpack__`` on the CPU: a numpy array, a detached torch tensor. Floating tensors of a
call share one dtype, float32 or float64, unless said (attention: float16, bfloat16, too). Any outer strides;
inner stride 1 or channels_last. Outputs are arguments, written in place. Every wrong argument raises
normscan.errors.ArgumentError. The GIL is released meanwhile.
"""

# ruff: noqa: A002 - "map" is what the native functions call it, and it may be passed by name

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

class Tensor(Protocol):
    def __dlpack_device__(self) -> tuple[Any, Any]: ...

    # numpy's and torch's signatures differ; both are called as __dlpack__(max_version=(1, 0))
    @property
    def __dlpack__(self) -> Any: ...

_Resize = Literal["stretch", "fit", "crop"]
_Metric = Literal["l1", "l2", "cosine", "relative_l1", "ssim", "cs"]
_Stain = Literal["residual", "red_ratio"]
_Output = Literal["squared_distance", "saturated", "nll"]
_Fuse = Literal["sum", "product"]
_Pool = Literal["mean", "max", "topk", "quantile", "area"]
_Group = Literal["mean", "max", "noisy_or", "topk", "fraction"]

def set_threads(n: int) -> None:
    """Threads of the pool, the caller included: 1..1024."""

def threads() -> int: ...
def simd_level() -> str:
    """The instruction set in use: "baseline", "avx2" or "avx512". NORMSCAN_CPU_ISA forces one; a wrong one raises."""

def simd_levels() -> list[str]:
    """Those that this processor can run."""

def build_info() -> dict[str, str]:
    """version, compiler, cuda ("no")."""

def prepare(image: Tensor, out: Tensor, *, resize: _Resize | str, mean: Sequence[float], std: Sequence[float]) -> None:
    """image [H,W] or [H,W,C] (C 1 or 3) uint8, uint16 or float32 in 0..1 -> out [C',h,w] float32, (x - mean) / std."""

def restore(map: Tensor, out: Tensor, *, resize: _Resize | str) -> None:
    """The inverse geometry: map [h,w] float32 -> out [H,W] float32, the picture's own size."""

def gaussian(
    z: Tensor,
    mean: Tensor,
    whitener: Tensor,
    out: Tensor,
    *,
    output: _Output | str = "squared_distance",
    saturation: float = 1.0,
) -> None:
    """Squared Mahalanobis distance d2, in squared standard deviations (PaDiM, eq. 2), or what `output` makes of it.

    "saturated": 1 - exp(-d2 / saturation); "nll": d2 / 2 + D log(2 pi) / 2 - log |det W|.
    z [N,D] or [N,C,H,W], mean [D], whitener [1], [D] or [D,D] (inverse Cholesky factor, lower) -> out [N] or [N,H,W]
    """

def gaussian_backward(
    grad_out: Tensor,
    z: Tensor,
    mean: Tensor,
    whitener: Tensor,
    grad_z: Tensor,
    grad_mean: Tensor,
    grad_whitener: Tensor,
    *,
    output: _Output | str = "squared_distance",
    saturation: float = 1.0,
) -> None: ...
def gaussian_mixture(z: Tensor, means: Tensor, whiteners: Tensor, log_weights: Tensor, out: Tensor) -> None:
    """Negative log-likelihood of a mixture of K Gaussians, in nats.

    z [N,D] or [N,C,H,W], means [K,D], whiteners [K,1], [K,D] or [K,D,D], log_weights [K] -> out [N] or [N,H,W]
    """

def gaussian_positions(
    z: Tensor,
    mean: Tensor,
    whitener: Tensor,
    out: Tensor,
    *,
    output: _Output | str = "squared_distance",
    saturation: float = 1.0,
) -> None:
    """The same with a Gaussian of its own at every position.

    z [N,C,H,W], mean [C,H,W], whitener [H,W,C,C] (lower) or packed [H,W,C(C+1)/2] -> out [N,H,W]
    """

def gaussian_positions_fit(z: Tensor, count: int, mean: Tensor, scatter: Tensor) -> None:
    """Take z [N,C,H,W] into mean [C,H,W] and packed scatter [H,W,C(C+1)/2] of `count` images before; both float64."""

def gaussian_positions_whitener(scatter: Tensor, whitener: Tensor, *, count: int, shrinkage: float) -> None:
    """scatter of `count` images -> whitener, the inverse Cholesky factors, both packed [H,W,C(C+1)/2] float64."""

def distance(a: Tensor, b: Tensor, out: Tensor, *, metric: _Metric | str, window: int = 11) -> None:
    """a, its reference b [N,C,H,W] -> out [N,H,W]. window (odd) is for ssim and cs."""

def distance_backward(
    grad_out: Tensor,
    a: Tensor,
    b: Tensor,
    grad_a: Tensor,
    grad_b: Tensor,
    *,
    metric: _Metric | str,
    window: int = 11,
) -> None: ...
def distance_maps(
    levels: Sequence[tuple[Tensor, Tensor]],
    out_map: Tensor,
    out_score: Tensor,
    *,
    metric: _Metric | str,
    weights: Sequence[float],
    fuse: _Fuse | str,
    sigma: float,
    pool: _Pool | str,
    parameter: float = 0.0,
) -> None:
    """Levels (a, its reference b) [N,C_l,H_l,W_l] -> out_map [N,H,W], fused and blurred; out_score [N], pooled."""

def stain(
    a: Tensor,
    b: Tensor,
    out: Tensor,
    *,
    metric: _Stain | str,
    cut: float = 0.0,
    hue: Sequence[float] = (350.0, 16.0),
    least_saturation: float = 0.0,
    window: int | None = None,
) -> None:
    """How red a is against its reference b, both RGB [N,3,H,W] in 0..1 -> out [N,H,W].

    "residual": (r(b) - r(a))^2, r = R - (G + B) / 2 and 0 below `cut`. "red_ratio": (n(b) + 1) / (n(a) + 1), n the
    pixels, in a window (odd) or the whole picture, whose hue lies in [from, to] degrees (round the circle) and whose
    saturation is at least least_saturation. Grey is never red. What is not finite makes all that counts it NaN.
    """

def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    gamma: Tensor | None = None,
    attended: Tensor | None = None,
    *,
    scale: float,
    grid: tuple[int, int] | None = None,
) -> None:
    """softmax(q k^T scale + bias) v: q [N,H,L,dk], k [N,H,M,dk], v [N,H,M,dv] -> out [N,H,L,dv], lse [N,H,L].

    q, k, v, out may also be float16 or bfloat16; lse, bias and gamma are float32 then. With residual (as out) and gamma
    [1], out = residual + gamma * that, and attended (as out, optional) takes the result before, for the backward pass.

    lse is the log-sum-exp of the scores. bias [H,2h-1,2w-1] by relative position on a grid (h, w), L = M = h w: query
    (y,x) and key (y',x') take bias at (h-1 + y-y', w-1 + x-x').
    """

def attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    bias: Tensor | None = None,
    grad_bias: Tensor | None = None,
    gamma: Tensor | None = None,
    grad_gamma: Tensor | None = None,
    *,
    scale: float,
    grid: tuple[int, int] | None = None,
) -> None:
    """With a gamma, `out` is what the forward call put into `attended`; the residual's gradient is grad_out itself."""

def resample(map: Tensor, out: Tensor) -> None:
    """map [N,h,w] -> out [N,H,W], bilinear, align_corners false."""

def smooth(map: Tensor, out: Tensor, *, sigma: float) -> None:
    """map [N,H,W] -> out [N,H,W]: Gaussian of sigma pixels, radius int(4 sigma + 0.5), mirrored edges."""

def pool(map: Tensor, out: Tensor, *, method: _Pool | str, parameter: float = 0.0) -> None:
    """map [N,H,W] -> out [N]. parameter: topk share (0,1], quantile 0..1, area threshold."""

def aggregate(scores: Tensor, groups: Tensor, out: Tensor, *, method: _Group | str, parameter: float = 0.0) -> None:
    """scores [N] float64, groups [N] int64 in 0..G-1 -> out [G] float64.

    parameter: the threshold of "fraction", the share in (0,1] of "topk". "noisy_or" takes probabilities in 0..1.
    """

class ScoringSpec:
    def __init__(self, json: str) -> None:
        """Raises normscan.errors.ConfigError with the path, what was found and what is allowed."""

    def json(self) -> str:
        """Canonical: every field, sorted keys, no spaces, shortest numbers."""

class Scorer:
    def __init__(self, spec: ScoringSpec, stats: Mapping[str, Tensor]) -> None:
        """stats: "<stats>.mean" and "<stats>.whitener" of every Gaussian term, copied.

        [D] and [1], [D] or [D,D]; per "position": [C,H,W] and [H,W,C,C] or packed [H,W,C(C+1)/2]
        """

    def score(
        self, outputs: Mapping[str, Tensor]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """float32 outputs -> maps [N,h,w], terms [N,T] before scale and weight, scores [N] (NaN: not to be scored)."""

    @property
    def threshold(self) -> float | None: ...
    @property
    def outputs(self) -> list[str]: ...
