"""The native core on a GPU. Only in builds with CUDA; importing it never fails for want of a GPU.

The functions of `Stream` are those of `normscan._native`, with the same names, shapes and errors, for tensors of one
CUDA device (torch, cupy: ``__dlpack__``). They are put on the stream and return at once.
"""

# ruff: noqa: A002 - "map" is what the native functions call it, and it may be passed by name

from normscan._native import Tensor

def device_count() -> int: ...
def why_none() -> str:
    """Why `device_count` is 0; empty where it is not."""

class Stream:
    def __init__(self, handle: int, *, device: int = 0) -> None:
        """handle: a cudaStream_t as an integer, 0 for the legacy default stream."""

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
        scale: float,
        grid: tuple[int, int] | None = None,
        allow_tf32: bool = False,
        workspace: Tensor,
    ) -> None:
        """As on the CPU. workspace [bytes] uint8, on 16 bytes, as much as `attention_backward_workspace` says."""

    def attention_backward_workspace(self, q: Tensor, *, grid: tuple[int, int] | None = None) -> int: ...
    def resample(self, map: Tensor, out: Tensor) -> None: ...
