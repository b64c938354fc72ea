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

    def resample(self, map: Tensor, out: Tensor) -> None: ...
