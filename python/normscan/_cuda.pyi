"""The native core on a GPU. Only in builds with CUDA; importing it never fails for want of a GPU.

The functions of `Stream` are those of `normscan._native`, with the same names, shapes and errors, for tensors of one
CUDA device (torch, cupy: ``__dlpack__``). They are put on the stream and return at once.
"""

# ruff: noqa: A002 - "map" is what the native functions call it, and it may be passed by name

from collections.abc import Sequence

from normscan._native import Tensor, _Output

def device_count() -> int: ...
def why_none() -> str:
    """Why `device_count` is 0; empty where it is not."""

class Stream:
    def __init__(self, handle: int, *, device: int = 0) -> None:
        """handle: a cudaStream_t as an integer, 0 for the legacy default stream."""

    def resample(self, map: Tensor, out: Tensor) -> None: ...

    # The Gaussian ops. workspace: uint8, of the bytes that the function above says for these shapes. allow_tf32: see
    # `normscan.ops.gaussian`.
    @staticmethod
    def gaussian_workspace(z: Sequence[int], whitener: Sequence[int], itemsize: int) -> int: ...
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
    ) -> None: ...
    @staticmethod
    def gaussian_backward_workspace(z: Sequence[int], whitener: Sequence[int], itemsize: int) -> int: ...
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
    @staticmethod
    def gaussian_mixture_workspace(z: Sequence[int], whiteners: Sequence[int], itemsize: int) -> int: ...
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
