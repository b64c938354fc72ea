"""What the custom ops share on their way into the native module."""

from __future__ import annotations

import torch

from normscan.errors import ArgumentError
from normscan.threads import follow_torch


def ready(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """Detached, contiguous CPU tensors of one floating dtype; hands torch's number of threads to the native pool.

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


def _check(tensors: dict[str, torch.Tensor]) -> None:
    follow_torch(torch.get_num_threads())
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            raise ArgumentError(
                f"{name} is on {tensor.device}, but normscan was built without CUDA; move it to the CPU"
            )
        if tensor.layout != torch.strided:
            raise ArgumentError(f"{name} has the layout {tensor.layout}, expected a dense tensor (torch.strided)")
