"""The native core on a GPU. Only in builds with CUDA; importing it never fails for want of a GPU.

The functions of `Stream` are those of `normscan._native`, with the same names, shapes and errors, for tensors of one
CUDA device (torch, cupy: ``__dlpack__``). They are put on the stream and return at once. Where they need room besides
their outputs, they take it as `workspace`, by name: a uint8 tensor [bytes] on that device that starts at a multiple of
16, of as many bytes as ``<op>_workspace`` says. That function takes what the op takes (`score_workspace` no more than
the size depends on, since results are made with it). Wherever they take a tensor, they take a `View` as well.
"""

# ruff: noqa: A002 - "map" is what the native functions call it, and it may be passed by name

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from normscan import _native
from normscan._native import _Fuse, _Metric, _Output, _Pool, _Resize, _Stain

Tensor: TypeAlias = _native.Tensor | View

def device_count() -> int: ...
def why_none() -> str:
    """Why `device_count` is 0; empty where it is not."""

class View:
    """Contiguous memory of the stream's device that has no object of its own, in place of a tensor.

    On trust: that the address is one of that device, holds as much, and stays allocated until the stream is done. What
    other streams do with it is not waited for.
    """

    def __init__(
        self, address: int, shape: Sequence[int], dtype: Literal["float32", "float64", "uint8", "uint16"]
    ) -> None: ...

class Scorer:
    """Runs a scoring spec on a GPU (`Stream.score`). May be used by many streams and threads at once."""

    def __init__(self, spec: str, stats: Mapping[str, _native.Tensor]) -> None:
        """spec: its JSON text, ``ScoringSpec.json()``; stats: as for `normscan._native.Scorer`, on the CPU; copied."""

    def statistics(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of what `Stream.score` takes as statistics, to be brought to the GPU once; empty for many specs.

        "<stats>.mean", "<stats>.whitener" (per "position" packed triangles [H,W,C(C+1)/2]), "<stats>.log_weights".
        """

class Stream:
    def __init__(self, handle: int, *, device: int = 0) -> None:
        """handle: a cudaStream_t as an integer, 0 for the legacy default stream."""

    def prepare(
        self, image: Tensor, out: Tensor, *, resize: _Resize | str, mean: Sequence[float], std: Sequence[float]
    ) -> None: ...
    def restore(self, map: Tensor, out: Tensor, *, resize: _Resize | str) -> None: ...
    def gaussian_workspace(
        self,
        z: Tensor,
        mean: Tensor,
        whitener: Tensor,
        out: Tensor,
        *,
        output: _Output | str = "squared_distance",
        saturation: float = 1.0,
        allow_tf32: bool = False,
    ) -> int: ...
    def gaussian(
        self,
        z: Tensor,
        mean: Tensor,
        whitener: Tensor,
        out: Tensor,
        *,
        workspace: Tensor,
        output: _Output | str = "squared_distance",
        saturation: float = 1.0,
        allow_tf32: bool = False,
    ) -> None:
        """allow_tf32: see `normscan.ops.gaussian`."""

    def gaussian_backward_workspace(
        self,
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
        allow_tf32: bool = False,
    ) -> int: ...
    def gaussian_backward(
        self,
        grad_out: Tensor,
        z: Tensor,
        mean: Tensor,
        whitener: Tensor,
        grad_z: Tensor,
        grad_mean: Tensor,
        grad_whitener: Tensor,
        *,
        workspace: Tensor,
        output: _Output | str = "squared_distance",
        saturation: float = 1.0,
        allow_tf32: bool = False,
    ) -> None: ...
    def gaussian_mixture_workspace(
        self,
        z: Tensor,
        means: Tensor,
        whiteners: Tensor,
        log_weights: Tensor,
        out: Tensor,
        *,
        allow_tf32: bool = False,
    ) -> int: ...
    def gaussian_mixture(
        self,
        z: Tensor,
        means: Tensor,
        whiteners: Tensor,
        log_weights: Tensor,
        out: Tensor,
        *,
        workspace: Tensor,
        allow_tf32: bool = False,
    ) -> None: ...
    def gaussian_positions(
        self,
        z: Tensor,
        mean: Tensor,
        whitener: Tensor,
        out: Tensor,
        *,
        output: _Output | str = "squared_distance",
        saturation: float = 1.0,
    ) -> None: ...
    def distance_workspace(
        self, a: Tensor, b: Tensor, out: Tensor, *, metric: _Metric | str, window: int = 11
    ) -> int: ...
    def distance(
        self, a: Tensor, b: Tensor, out: Tensor, *, workspace: Tensor, metric: _Metric | str, window: int = 11
    ) -> None: ...
    def distance_backward_workspace(
        self,
        grad_out: Tensor,
        a: Tensor,
        b: Tensor,
        grad_a: Tensor,
        grad_b: Tensor,
        *,
        metric: _Metric | str,
        window: int = 11,
    ) -> int:
        """For ssim and cs, 4 values of each of a; else little or nothing."""

    def distance_backward(
        self,
        grad_out: Tensor,
        a: Tensor,
        b: Tensor,
        grad_a: Tensor,
        grad_b: Tensor,
        *,
        workspace: Tensor,
        metric: _Metric | str,
        window: int = 11,
    ) -> None: ...
    def stain_workspace(
        self,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        *,
        metric: _Stain | str,
        cut: float = 0.0,
        hue: Sequence[float] = (350.0, 16.0),
        least_saturation: float = 0.0,
        window: int | None = None,
    ) -> int:
        """For red_ratio, 12 bytes a pixel."""

    def stain(
        self,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        *,
        workspace: Tensor,
        metric: _Stain | str,
        cut: float = 0.0,
        hue: Sequence[float] = (350.0, 16.0),
        least_saturation: float = 0.0,
        window: int | None = None,
    ) -> None: ...
    def distance_maps_workspace(
        self,
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
    ) -> int: ...
    def distance_maps(
        self,
        levels: Sequence[tuple[Tensor, Tensor]],
        out_map: Tensor,
        out_score: Tensor,
        *,
        workspace: Tensor,
        metric: _Metric | str,
        weights: Sequence[float],
        fuse: _Fuse | str,
        sigma: float,
        pool: _Pool | str,
        parameter: float = 0.0,
    ) -> None:
        """At most 8 levels."""

    def attention(
        self,
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
        allow_tf32: bool = False,
    ) -> None:
        """As on the CPU. float32 is multiplied exactly, or with allow_tf32 on tensor cores, as 16 bits always are."""

    def attention_backward_workspace(
        self,
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
        allow_tf32: bool = False,
    ) -> int:
        """For the bias, up to 64 MB."""

    def attention_backward(
        self,
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
        workspace: Tensor,
        scale: float,
        grid: tuple[int, int] | None = None,
        allow_tf32: bool = False,
    ) -> None: ...
    def resample(self, map: Tensor, out: Tensor) -> None: ...
    def smooth_workspace(self, map: Tensor, out: Tensor, *, sigma: float) -> int: ...
    def smooth(self, map: Tensor, out: Tensor, *, workspace: Tensor, sigma: float) -> None: ...
    def pool_workspace(self, map: Tensor, out: Tensor, *, method: _Pool | str, parameter: float = 0.0) -> int: ...
    def pool(
        self, map: Tensor, out: Tensor, *, workspace: Tensor, method: _Pool | str, parameter: float = 0.0
    ) -> None: ...
    def score_workspace(self, scorer: Scorer, outputs: Mapping[str, Tensor]) -> int:
        """For the maps of all terms and one more of the result's size, and little besides."""

    def score(
        self,
        scorer: Scorer,
        statistics: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        maps: Tensor,
        terms: Tensor,
        scores: Tensor,
        *,
        workspace: Tensor,
    ) -> None:
        """As `normscan._native.Scorer.score`, with statistics (`Scorer.statistics`), outputs and results on the GPU.

        maps [N,h,w] float32, terms [N,T] and scores [N] float64 are the caller's, and are written.
        """
