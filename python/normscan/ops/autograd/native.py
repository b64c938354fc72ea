"""What the custom ops share on their way into the native module."""

from __future__ import annotations

from typing import Any

import torch

from normscan import _native
from normscan.errors import ArgumentError
from normscan.ops.border import cuda_module

_threads = 0


def ready(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """Detached, contiguous tensors of one device; hands torch's thread count to the native pool.

    A tensor with other strides is copied here: the native border itself never copies.
    """
    _check(tensors)
    return [tensor.detach().contiguous() for tensor in tensors.values()]


def ready_features(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """As `ready`, but channels_last stays as it is: the distances read it in place."""
    _check(tensors)
    return [
        tensor.detach() if _is_channels_last(tensor) else tensor.detach().contiguous() for tensor in tensors.values()
    ]


def ready_positions(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """As `ready`, but outer strides stay, and so does a map [N,C,L] seen as one head [N,1,L,C], for attention."""
    _check(tensors)
    return [
        tensor.detach() if _is_side_by_side(tensor) else tensor.detach().contiguous() for tensor in tensors.values()
    ]


def is_map(tensor: torch.Tensor) -> bool:
    """[N,1,L,C] that lies in memory as [N,C,L]."""
    return tensor.dim() == 4 and tensor.shape[1] == 1 and tensor.stride(2) == 1 and tensor.stride(3) > 1


def _is_side_by_side(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 0 or tensor.stride(-1) == 1 or tensor.shape[-1] == 1 or is_map(tensor)


def _is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def native(tensor: torch.Tensor) -> Any:
    """Where the ops on this tensor run: the CPU module, or the current stream of its GPU. Both have the same functions.

    Raises `ArgumentError` for a CUDA tensor in a build without CUDA, `DeviceError` where the GPU cannot be used.
    """
    if tensor.device.type == "cpu":
        return _native
    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return cuda_module(f"a tensor is on {tensor.device}").Stream(stream, device=tensor.device.index)


def _check(tensors: dict[str, torch.Tensor]) -> None:
    global _threads  # noqa: PLW0603  (one number that mirrors torch's own global)
    if (count := torch.get_num_threads()) != _threads:
        _native.set_threads(count)
        _threads = count
    first, where = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.device.type not in {"cpu", "cuda"}:
            raise ArgumentError(f"{name} is on {tensor.device}, expected the CPU or a CUDA device")
        if tensor.device != where:
            raise ArgumentError(f"{name} is on {tensor.device}, {first} on {where}; expected one device")
    if where.type == "cuda":
        cuda_module(f"{first} is on {where}")
