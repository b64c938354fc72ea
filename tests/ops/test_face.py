"""Wrong arguments at the face of the ops, `normscan.ops`, with numpy arrays and with torch tensors.

`FACES` declares one small valid call of each op; every test changes one array of it. What the native border says of
dtypes, ranks and shapes is in `test_border`: here is what must not slip past it on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from arrays import Array, normal, uniform
from normscan import ops
from normscan.errors import ArgumentError


class Face(NamedTuple):
    """One valid call: its arrays by name, what to do with them, and whether it has a backward."""

    arrays: dict[str, Array]
    call: Callable[..., Any]
    has_backward: bool


def _pairs(*sides: Any) -> Any:
    return ops.distance([sides[:2], sides[2:]], metric="l1", size=(6, 7))


FACES = {
    "gaussian": Face({"z": normal(2, 3), "mean": normal(3), "whitener": normal(3, 3)}, ops.gaussian, True),
    "gaussian_positions": Face(
        {"z": normal(2, 3, 4, 5), "mean": normal(3, 4, 5), "whitener": normal(4, 5, 6)}, ops.gaussian_positions, False
    ),
    "distance_map": Face(
        {"a": uniform(2, 3, 4, 5), "b": uniform(2, 3, 4, 5, seed=1)},
        lambda a, b: ops.distance_map(a, b, metric="cosine"),
        True,
    ),
    "distance": Face({f"pairs[{i}].{side}": uniform(2, 3, 4 + i, 5) for i in range(2) for side in "ab"}, _pairs, False),
}
ARGUMENTS = [(face, name) for face, found in FACES.items() for name in found.arrays]
KINDS: dict[str, Callable[[Array], Any]] = {"numpy": np.copy, "torch": lambda x: torch.from_numpy(x.copy())}


def refused(face: str, kind: str, name: str, value: Any, named: tuple[str, ...] = ()) -> str:
    """The message about a call in which one array is replaced; it names that one (or, native, its name there)."""
    found = FACES[face]
    arrays = {key: KINDS[kind](array) for key, array in found.arrays.items()} | {name: value}
    with pytest.raises(ArgumentError) as caught:
        found.call(*arrays.values())
    message = str(caught.value)
    native = name.replace("pairs", "levels")
    assert re.search("|".join(map(re.escape, (name, native, *named))), message), message
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("face", FACES)
def test_the_call_itself_is_right(face: str, kind: str) -> None:
    found = FACES[face]
    found.call(*(KINDS[kind](array) for array in found.arrays.values()))


@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "bool"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("face", "name"), ARGUMENTS)
def test_a_wrong_dtype(face: str, name: str, kind: str, dtype: str) -> None:
    message = refused(face, kind, name, KINDS[kind](np.ones(FACES[face].arrays[name].shape, dtype)))
    assert dtype in message
    assert "float32" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("face", "name"), ARGUMENTS)
def test_two_floating_dtypes(face: str, name: str, kind: str) -> None:
    message = refused(face, kind, name, KINDS[kind](FACES[face].arrays[name].astype("float64")), ("out",))
    assert "float64" in message
    assert "float32" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("face", "name"), ARGUMENTS)
def test_a_wrong_rank(face: str, name: str, kind: str) -> None:
    array = FACES[face].arrays[name]
    for value in (array[None, None], np.array(array.flat[0])):
        refused(face, kind, name, KINDS[kind](value))


@pytest.mark.parametrize(("face", "name"), ARGUMENTS)
def test_a_tensor_on_another_device_than_the_rest(face: str, name: str) -> None:
    """With one on "meta", torch would call the fake kernel, and give back memory that nobody wrote."""
    value = torch.from_numpy(FACES[face].arrays[name]).to("meta")
    message = refused(face, "torch", name, value)
    assert "meta" in message
    assert "cpu" in message


@pytest.mark.parametrize(("face", "name"), ARGUMENTS)
def test_a_sparse_tensor(face: str, name: str) -> None:
    assert "sparse" in refused(face, "torch", name, torch.from_numpy(FACES[face].arrays[name]).to_sparse())


@pytest.mark.parametrize(("face", "name"), [pair for pair in ARGUMENTS if not FACES[pair[0]].has_backward])
def test_a_gradient_that_there_is_not(face: str, name: str) -> None:
    message = refused(face, "torch", name, torch.from_numpy(FACES[face].arrays[name].copy()).requires_grad_())
    assert "gradient" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(0, 3), (-3, 3), (3,), (1, 2, 3), 3, (2**31, 3), (2**70, 3), (1.5, 3), "ab", None])
def test_a_wrong_size_of_the_map(size: Any, kind: str) -> None:
    pair = tuple(KINDS[kind](array) for array in FACES["distance_map"].arrays.values())
    with pytest.raises(ArgumentError, match=rf"size is {re.escape(repr(size))}, expected .*H"):
        ops.distance([pair], metric="l1", size=size)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_that_is_none(kind: str) -> None:
    array = KINDS[kind](normal(2, 3, 4, 5))
    for pairs, found in (([(array,)], "has 1"), ([(array, array), (array,) * 3], "has 3")):
        with pytest.raises(ArgumentError, match=rf"pairs\[\d\] {found} tensors, expected two"):
            ops.distance(pairs, metric="l1", size=(3, 3))
