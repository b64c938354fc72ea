"""Where arrays enter: which kind they are, and the layout that the kernels take."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from normscan.errors import ArgumentError, DeviceError


def is_torch(*arrays: Any, **named: Any) -> bool:
    """True if the arrays are torch tensors, False if they are numpy arrays.

    A mixture is an `ArgumentError`, and so are torch tensors on several devices: with one of them on "meta", torch
    would call the fake kernel and return memory that nobody wrote.
    """
    named = {f"argument {i}": array for i, array in enumerate(arrays)} | named
    arrays = tuple(named.values())
    in_numpy = [isinstance(a, (np.ndarray, np.generic)) for a in arrays]  # torch.compile can follow this
    if all(in_numpy):
        return False
    if any(in_numpy) or not all(hasattr(a, "__dlpack__") for a in arrays):
        found = ", ".join(type(a).__name__ for a in arrays)
        raise ArgumentError(f"expected numpy arrays or torch tensors, all of one kind, found: {found}")
    for name, array in named.items():
        if array.device != arrays[0].device:
            first = next(iter(named))
            raise ArgumentError(f"{name} is on {array.device}, {first} is on {arrays[0].device}; expected one device")
    return True


def floating(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array as the kernels take it: float32 or float64, C-contiguous; other dtypes are an error."""
    if array.dtype not in (np.float32, np.float64):
        raise ArgumentError(f"{name} has dtype {array.dtype}, expected float32 or float64")
    return np.asarray(array, order="C")  # ascontiguousarray would make [1] of a single number


def features(name: str, array: np.ndarray) -> np.ndarray:
    """As `floating`, but [N,C,H,W] whose channels lie side by side stays as it is: the distances read it in place."""
    if array.ndim == 4 and array.transpose(0, 2, 3, 1).flags.c_contiguous:
        return floating(name, array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return floating(name, array)


def positions(name: str, array: np.ndarray) -> np.ndarray:
    """An array for attention, which takes float16 and any outer strides; copied where its channels lie apart."""
    if array.dtype not in (np.float32, np.float64, np.float16):
        raise ArgumentError(f"{name} has dtype {array.dtype}, expected float32, float64 or float16")
    size = array.dtype.itemsize
    apart = array.ndim > 0 and array.shape[-1] > 1 and array.strides[-1] != size
    return np.ascontiguousarray(array) if apart or any(step % size for step in array.strides) else array


def cuda_module(found: str) -> ModuleType:
    """Return `normscan._cuda` with a GPU to run on; `found` says in the error what asked for it.

    Raises `ArgumentError` in a build without CUDA, `DeviceError` where driver or device are missing.
    """
    try:
        module = import_module("normscan._cuda")
    except ModuleNotFoundError as error:
        raise ArgumentError(f"{found}, but normscan was built without CUDA; move it to the CPU") from error
    if module.device_count() == 0:
        raise DeviceError(f"{found}, but no GPU can be used: {module.why_none()}")
    return module
