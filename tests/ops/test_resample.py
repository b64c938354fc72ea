"""The native bilinear resampling against the reference, and the reference against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native
from reference import resample as reference
from tolerances import assert_close


def run(map_: Array, size: tuple[int, int]) -> Array:
    out = unwritten(map_.shape[0], *size, dtype=map_.dtype)
    _native.resample(map_, out)
    return out


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40))
def test_reference_agrees_with_torch(height: int, width: int, new_height: int, new_width: int) -> None:
    map_ = normal(2, height, width, dtype="float64")
    size = (new_height, new_width)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(map_)[:, None], size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(reference.resample(map_, size), expected[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("new_side", SIDES)
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, new_side: int, dtype: str) -> None:
    map_ = normal(2, side, side, dtype=dtype)
    assert_close(run(map_, (new_side, new_side)), reference.resample(map_, (new_side, new_side)), "resample")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(dtype: str, layout: str) -> None:
    place = LAYOUTS[layout]
    map_, out = normal(3, 7, 9, dtype=dtype), place(unwritten(3, 19, 23, dtype=dtype))
    _native.resample(place(map_), out)
    assert_close(out, reference.resample(map_, (19, 23)), "resample")


@given(
    st.integers(0, 3),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 48),
    st.integers(1, 48),
    st.sampled_from(FLOATS),
)
def test_any_shape(images: int, height: int, width: int, new_height: int, new_width: int, dtype: str) -> None:
    map_ = normal(images, height, width, dtype=dtype)
    assert_close(run(map_, (new_height, new_width)), reference.resample(map_, (new_height, new_width)), "resample")


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_size_changes_nothing(dtype: str) -> None:
    map_ = normal(2, 19, 23, dtype=dtype)
    np.testing.assert_array_equal(run(map_, (19, 23)), map_)


def test_nan_reaches_its_neighbours_only() -> None:
    map_ = normal(2, 8, 8)
    map_[1, 4, 4] = np.nan
    out = run(map_, (16, 16))
    assert np.isnan(out[1, 7:11, 7:11]).all()
    assert np.isnan(out).sum() == 16
