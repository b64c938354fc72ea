"""The native Gaussian blur against the reference, and the reference against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from arrays import FLOATS, LAYOUTS, SIDES, Array, normal, unwritten
from normscan import _native
from normscan.errors import ArgumentError
from reference import smooth as reference
from tolerances import assert_close

SIGMAS = st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5, 4.0, 9.0])


def run(map_: Array, sigma: float) -> Array:
    out = unwritten(*map_.shape, dtype=map_.dtype)
    _native.smooth(map_, out, sigma=sigma)
    return out


@given(st.integers(1, 24), st.integers(1, 24), SIGMAS)
def test_reference_agrees_with_scipy(height: int, width: int, sigma: float) -> None:
    map_ = normal(2, height, width, dtype="float64")
    expected = scipy.ndimage.gaussian_filter(map_, (0, sigma, sigma), mode="reflect")
    np.testing.assert_allclose(reference.smooth(map_, sigma=sigma), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sigma", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("side", SIDES)
def test_sides(side: int, sigma: float, dtype: str) -> None:
    map_ = normal(2, side, side, dtype=dtype)
    assert_close(run(map_, sigma), reference.smooth(map_, sigma=sigma), "smooth")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(dtype: str, layout: str) -> None:
    place = LAYOUTS[layout]
    map_, out = normal(3, 19, 23, dtype=dtype), place(unwritten(3, 19, 23, dtype=dtype))
    _native.smooth(place(map_), out, sigma=1.5)
    assert_close(out, reference.smooth(map_, sigma=1.5), "smooth")


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), SIGMAS, st.sampled_from(FLOATS))
def test_any_shape(images: int, height: int, width: int, sigma: float, dtype: str) -> None:
    map_ = normal(images, height, width, dtype=dtype)
    assert_close(run(map_, sigma), reference.smooth(map_, sigma=sigma), "smooth")


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigma_zero_copies(dtype: str) -> None:
    map_ = normal(2, 19, 23, dtype=dtype)
    np.testing.assert_array_equal(run(map_, 0.0), map_)


@pytest.mark.parametrize("sigma", [-1.0, np.nan, np.inf])
def test_a_sigma_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ArgumentError, match=r"smooth.*sigma"):
        run(normal(1, 4, 4), sigma)


def test_nan_reaches_as_far_as_the_kernel() -> None:
    map_ = normal(2, 30, 30)
    map_[1, 15, 15] = np.nan
    out = run(map_, 1.0)
    assert np.isnan(out[1, 11:20, 11:20]).all()
    assert np.isnan(out).sum() == 81
