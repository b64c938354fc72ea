"""Memory that an op must not touch: of another device, too large to be counted, shared with an output, or none at all.

The calls are those of `test_border`: an op that has a row there is covered here.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

import numpy as np
import pytest

from arrays import Array, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from ops.test_border import ARGUMENTS, CALLS, OUTPUTS, refused, run

ELSEWHERE = {2: "CUDA", 13: "CUDA", 10: "DLPack type 10", 4: "DLPack type 4"}


class Foreign:
    """A tensor of another device: exporting it would need its driver, so nobody may ask for that."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("the device was not asked for first")


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_a_tensor_of_another_device(call: str, name: str, kind: int) -> None:
    message = refused(call, name, Foreign(kind))
    assert ELSEWHERE[kind] in message
    assert "CPU" in message


class _Managed(ctypes.Structure):
    """DLManagedTensor of DLPack before 1.0, flat."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Claim:
    """The memory of an array with whatever shape and strides (in elements) it claims to have."""

    def __init__(self, array: Array, shape: list[int], strides: list[int]) -> None:
        self.array = array
        self.shape, self.strides = ((ctypes.c_int64 * len(x))(*x) for x in (shape, strides))
        code = {"f": 2, "u": 1, "i": 0}[array.dtype.kind]
        cpu = (ctypes.c_int32 * 2)(1, 0)
        self.managed = _Managed(
            array.ctypes.data, cpu, len(shape), code, 8 * array.itemsize, 1, self.shape, self.strides, 0, None, None
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self) -> object:  # refuses max_version, as objects from before DLPack 1.0 do
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return make(ctypes.addressof(self.managed), b"dltensor", None)


def strides(array: Array) -> list[int]:
    """In elements."""
    return [step // array.itemsize for step in array.strides]


@pytest.mark.parametrize("call", CALLS)
def test_a_claim_that_is_true_is_taken(call: str) -> None:
    """So that the claims below are refused for what is wrong with them."""
    tensors, outputs, options = CALLS[call]()
    expected = CALLS[call]().tensors
    run(call, expected, options)
    run(call, {name: Claim(x, list(x.shape), strides(x)) for name, x in tensors.items()}, options)
    for name in outputs:
        np.testing.assert_array_equal(tensors[name], expected[name])


@pytest.mark.parametrize("size", [2**31, 2**63 - 1, -1])
@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_a_size_that_overflows_32_bits_or_is_negative(call: str, name: str, size: int) -> None:
    found = CALLS[call]().tensors[name]
    for axis in range(found.ndim):
        shape = list(found.shape)
        shape[axis] = size
        message = refused(call, name, Claim(found, shape, strides(found)), named=tuple(CALLS[call]().tensors))
        assert str(size) in message


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, name in ARGUMENTS if CALLS[call]().tensors[name].ndim > 1]
)
def test_bytes_that_overflow_64_bits(call: str, name: str) -> None:
    found = CALLS[call]().tensors[name]
    large = [2**31 - 1] * found.ndim
    message = refused(call, name, Claim(found, large, strides(found)), named=tuple(CALLS[call]().tensors))
    assert str(large[0]) in message
    far = [2**61] + [1] * (found.ndim - 1)
    assert str(far[0]) in refused(call, name, Claim(found, list(found.shape), far))


WIDE = [(call, name) for call, name in OUTPUTS if sum(n > 1 for n in CALLS[call]().tensors[name].shape) > 1]


@pytest.mark.parametrize(("call", "name"), WIDE)
def test_an_output_whose_elements_overlap(call: str, name: str) -> None:
    """Two threads would write the same element."""
    found = CALLS[call]().tensors[name]
    assert "overlap" in refused(call, name, Claim(found, list(found.shape), [1] * found.ndim))


# (call, output, other tensor)
PAIRS = [(call, name, other) for call, name in OUTPUTS for other in CALLS[call]().tensors if other != name]


@pytest.mark.parametrize("place", ["first byte", "last byte"])
@pytest.mark.parametrize(("call", "name", "other"), PAIRS)
def test_an_output_in_the_memory_of_another_tensor(call: str, name: str, other: str, place: str) -> None:
    tensors, _, options = CALLS[call]()
    written, beside = tensors[name], tensors[other]
    memory = np.zeros(written.nbytes + beside.nbytes, np.uint8)
    first = 0 if place == "first byte" else written.nbytes - written.itemsize
    shared = memory[: written.nbytes].view(written.dtype).reshape(written.shape)
    inside = memory[first : first + beside.nbytes].view(beside.dtype).reshape(beside.shape)
    inside[...] = beside
    with pytest.raises(ArgumentError, match="shares memory") as caught:
        run(call, tensors | {name: shared, other: inside}, options)
    for named in (name, other):
        assert re.search(rf"\b{re.escape(named)}", str(caught.value))


def test_a_fit_in_the_memory_of_its_input() -> None:
    memory = np.zeros(60)
    z, mean, scatter = memory[:12].reshape(2, 3, 2, 1), memory[12:18].reshape(3, 2, 1), memory[24:36].reshape(2, 1, 6)
    _native.gaussian_positions_fit(z, 0, mean, scatter)
    for wrong in (memory[11:17].reshape(3, 2, 1), memory[35:41].reshape(3, 2, 1)):
        with pytest.raises(ArgumentError, match=r"mean shares memory with (z|scatter)"):
            _native.gaussian_positions_fit(z, 0, wrong, scatter)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.s_[::2], np.s_[1::2]),
        (np.s_[:, ::2], np.s_[:, 1::2]),
        (np.s_[:, :, :7], np.s_[:, :, 7:]),
        (np.s_[:3, ::-3, :7], np.s_[:3, 1::3, 7:]),
    ],
)
def test_an_output_between_the_elements_of_its_input(before: Any, after: Any) -> None:
    """Slices of one array share no memory, even where each begins within the bounds of the other."""
    memory = normal(6, 12, 14)
    expected = unwritten(*memory[before].shape)
    _native.smooth(np.ascontiguousarray(memory[before]), expected, sigma=1.0)
    _native.smooth(memory[before], memory[after], sigma=1.0)
    np.testing.assert_array_equal(memory[after], expected)


@pytest.mark.parametrize("call", CALLS)
def test_sizes_of_zero_are_refused_or_leave_nothing_unwritten(call: str) -> None:
    """In every call, all axes of one size at once: 2 is the batch, 3 the channels, and so on."""
    for size in {n for x in CALLS[call]().tensors.values() for n in x.shape}:
        tensors, outputs, options = CALLS[call]()
        tensors = {
            name: np.ascontiguousarray(x[tuple(slice(0, 0 if n == size else None) for n in x.shape)])
            for name, x in tensors.items()
        }
        refusal = ""
        try:
            run(call, tensors, options)
        except ArgumentError as error:
            refusal = str(error)
        written = all(not np.isnan(tensors[name]).any() for name in outputs)
        assert re.search(r"\b0\b|empty|no members", refusal) if refusal else written, refusal or f"{size} as 0"
