"""GaussianFit against numpy on all vectors at once, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.errors import ArgumentError
from normscan.scoring.statistics import GaussianFit


def vectors(n: int, channels: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, channels)) @ random.standard_normal((channels, channels)) + offset


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=6), st.integers(1, 7), st.sampled_from([0.0, 1e6]))
def test_parts_merge_to_the_whole(sizes: list[int], channels: int, offset: float) -> None:
    z = vectors(sum(sizes) + 2, channels, offset=offset)
    streamed, merged, start = GaussianFit(), GaussianFit(), 0
    for size in [*sizes, 2]:
        streamed.update(z[start : start + size])
        part = GaussianFit()
        part.update(z[start : start + size])
        merged.merge(part)
        start += size
    scale = np.abs(np.cov(z.T)).max()
    for fit in (streamed, merged):
        assert fit.count == len(z)
        np.testing.assert_allclose(fit.mean, z.mean(axis=0), rtol=1e-12, atol=1e-10)
        np.testing.assert_allclose(fit.covariance, np.cov(z.T).reshape(channels, channels), atol=1e-10 * max(scale, 1))


def test_positions_of_a_map_are_pooled() -> None:
    z = np.random.default_rng(1).standard_normal((5, 3, 4, 6)).astype(np.float32)
    maps, rows, tensor = GaussianFit(), GaussianFit(), GaussianFit()
    maps.update(z)
    rows.update(np.stack([z[n, :, i, j] for n in range(5) for i in range(4) for j in range(6)]))
    tensor.update(torch.from_numpy(z).to(memory_format=torch.channels_last))
    assert maps.count == 5 * 4 * 6
    np.testing.assert_allclose(maps.covariance, rows.covariance, atol=1e-12)
    np.testing.assert_allclose(tensor.covariance, rows.covariance, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 19, 64])
@pytest.mark.parametrize("shrinkage", [0.0, 0.01, 1.0])
def test_whitener_is_the_inverse_cholesky_factor(channels: int, shrinkage: float) -> None:
    z = vectors(300, channels)
    fit = GaussianFit()
    fit.update(z)
    covariance = np.cov(z.T).reshape(channels, channels)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / channels * np.eye(channels)
    whitener = fit.whitener(shrinkage)
    np.testing.assert_allclose(whitener, np.linalg.inv(np.linalg.cholesky(shrunk)), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(whitener, np.tril(whitener))
    np.testing.assert_allclose(fit.diagonal(shrinkage), 1 / np.sqrt(np.diag(shrunk)), rtol=1e-12)
    np.testing.assert_allclose(fit.isotropic(), [1 / np.sqrt(np.trace(covariance) / channels)], rtol=1e-12)


def test_fewer_vectors_than_channels_need_shrinkage() -> None:
    fit = GaussianFit()
    fit.update(vectors(10, 64))
    assert np.isfinite(fit.whitener()).all()
    with pytest.raises(ArgumentError, match=r"10 vectors with 64 channels is singular.*shrinkage above 0"):
        fit.whitener(shrinkage=0)


def test_a_collapsed_network_is_named() -> None:
    fit = GaussianFit()
    same = np.float32(0.1) * (1 + np.finfo(np.float32).eps * np.random.default_rng(0).integers(-1, 1, (50, 4)) / 4)
    fit.update(same)
    for call in (fit.whitener, fit.diagonal, fit.isotropic):
        with pytest.raises(ArgumentError, match="has collapsed: over 50 vectors"):
            call()


def test_a_constant_channel() -> None:
    z = vectors(50, 3)
    z[:, 1] = 0
    fit = GaussianFit()
    fit.update(z)
    assert np.isfinite(fit.diagonal()).all()
    with pytest.raises(ArgumentError, match=r"1 of 3 channels are constant \(first: 1\)"):
        fit.diagonal(shrinkage=0)


def test_too_few_vectors() -> None:
    fit = GaussianFit()
    fit.update(np.zeros((0, 5)))
    assert fit.count == 0
    with pytest.raises(ArgumentError, match="no vector seen"):
        _ = fit.mean
    fit.update(np.zeros((1, 5)))
    with pytest.raises(ArgumentError, match="1 vectors seen, a covariance needs at least 2"):
        _ = fit.covariance
    with pytest.raises(ArgumentError, match="at least 2"):
        fit.whitener()


def test_wrong_input_says_what_was_found() -> None:
    fit = GaussianFit()
    fit.update(vectors(4, 3))
    with pytest.raises(ArgumentError, match="new vectors have 2 channels, those before 3"):
        fit.update(vectors(4, 2))
    with pytest.raises(ArgumentError, match=r"float64 of shape \[4\]"):
        fit.update(np.zeros(4))
    with pytest.raises(ArgumentError, match="int64"):
        fit.update(np.zeros((4, 3), dtype=np.int64))
    with pytest.raises(ArgumentError, match="shrinkage is 2"):
        fit.whitener(shrinkage=2)
    z = np.zeros((2, 3, 2, 2), np.float32)
    z[1, 2, 0, 1] = np.nan
    with pytest.raises(ArgumentError, match=r"1 of 24 feature values are not finite \(first in channel 2\)"):
        fit.update(z)
    assert fit.count == 4


def test_the_properties_are_copies() -> None:
    fit = GaussianFit()
    fit.update(vectors(4, 3))
    fit.mean[:] = 7
    fit.covariance[:] = 7
    assert not (fit.mean == 7).any()
    assert not (fit.covariance == 7).any()
