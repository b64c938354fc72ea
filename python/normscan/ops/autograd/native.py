"""What the custom ops share on their way into the native module."""

from __future__ import annotations

from typing import Any

import torch

from normscan import _native
from normscan.errors import ArgumentError
from normscan.ops.border import cuda_module
from normscan.threads import follow_torch


def ready(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """Detached, contiguous tensors of one device; hands torch's number of threads to the native pool.

    A tensor with other strides is copied here: the native border itself never copies.
    """
    _check(tensors)
    return [tensor.detach().contiguous() for tensor in tensors.values()]


def ready_features(**tensors: torch.Tensor) -> list[torch.Tensor]:
    """As `ready`, but channels_last stays as it is: distances and Gaussians read it in place."""
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


PRODUCTS = frozenset({"gaussian", "gaussian_backward", "gaussian_mixture", "attention", "attention_backward"})
"""The ops that multiply matrices: on a GPU, torch's own switch says whether they may round float32 to tf32."""


def call(op: str, *tensors: Any, **options: Any) -> None:
    """Run an op where its tensors are; on a GPU with the workspace that it asks for. Tensors may go by name, too."""
    one = next(tensor for tensor in (*tensors, *options.values()) if isinstance(tensor, torch.Tensor))
    where = native(one)
    if where is not _native:
        if op in PRODUCTS:
            options["allow_tf32"] = torch.backends.cuda.matmul.allow_tf32
        if hasattr(where, f"{op}_workspace"):
            size = getattr(where, f"{op}_workspace")(*tensors, **options)
            options["workspace"] = one.new_empty(size, dtype=torch.uint8)
    getattr(where, op)(*tensors, **options)


def float32_under_autocast(op: Any) -> None:
    """Under autocast the op computes in float32, as torch's own distances and losses do; float64 stays."""
    for device in ("cpu", "cuda"):
        op.register_autocast(device, torch.float32)


def _check(tensors: dict[str, torch.Tensor]) -> None:
    follow_torch(torch.get_num_threads())
    first, where = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.device.type not in {"cpu", "cuda"}:
            raise ArgumentError(f"{name} is on {tensor.device}, expected the CPU or a CUDA device")
        if tensor.device != where:
            raise ArgumentError(f"{name} is on {tensor.device}, {first} on {where}; expected one device")
        if tensor.layout != torch.strided:
            raise ArgumentError(f"{name} has the layout {tensor.layout}, expected a dense tensor (torch.strided)")
    if where.type == "cuda":
        cuda_module(f"{first} is on {where}")
