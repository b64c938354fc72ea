"""GaussianPositionsFit against GaussianFit at each position, its way into the scorer, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from arrays import normal
from normscan import _native
from normscan.errors import ArgumentError
from normscan.scoring.statistics import GaussianFit, GaussianPositionsFit


def fitted(*batches: np.ndarray) -> GaussianPositionsFit:
    fit = GaussianPositionsFit()
    for z in batches:
        fit.update(z)
    return fit


def test_each_position_is_a_fit_of_its_own() -> None:
    z = normal(30, 7, 3, 4) + 5
    fit, lower = fitted(z[:11], z[11:11], z[11:]), np.tril_indices(7)
    means, covariances, whiteners = fit.mean, fit.covariance, fit.whitener()
    assert fit.count == 30
    for y, x in np.ndindex(3, 4):
        one = GaussianFit()
        one.update(z[:, :, y, x])
        np.testing.assert_allclose(means[:, y, x], one.mean, rtol=1e-12)
        np.testing.assert_allclose(covariances[y, x], one.covariance[lower], atol=1e-12)
        np.testing.assert_allclose(whiteners[y, x], one.whitener()[lower], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_parts_merge_to_the_whole(offset: float) -> None:
    z = normal(30, 5, 3, 4, dtype="float64") + offset
    whole, merged, part = fitted(z), GaussianPositionsFit(), fitted(z[9:])
    merged.merge(fitted(z[:9]))
    merged.merge(GaussianPositionsFit())
    before = part.covariance
    merged.merge(part)
    assert merged.count == 30
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(merged.covariance, whole.covariance, atol=1e-9)
    np.testing.assert_array_equal(part.covariance, before)


def test_torch_in_channels_last() -> None:
    z = normal(9, 5, 3, 4)
    tensor = torch.from_numpy(z).to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(fitted(tensor).covariance, fitted(z).covariance)


def test_normal_images_score_about_one_a_channel() -> None:
    term = {"op": "gaussian", "of": ["f"], "stats": "s", "form": "full", "per": "position"}
    size = {"height": 3, "width": 4, "channels": 3, "resize": "fit", "mean": [0, 0, 0], "std": [1, 1, 1]}
    spec = _native.ScoringSpec(json.dumps({"schema": 1, "family": "test", "input": size, "terms": [term]}))
    z = normal(400, 5, 3, 4)
    fit = fitted(z)
    scores = _native.Scorer(spec, {"s.mean": fit.mean, "s.whitener": fit.whitener(0.0)}).score({"f": z})[2]
    assert scores.mean() == pytest.approx(5, rel=0.01)  # the trace of S^-1 S, but for (n - 1) / n


def test_a_collapsed_position_is_named() -> None:
    z = normal(9, 3, 4, 5)
    z[:, :, 2, 3] = 0.5
    message = r"collapsed at 1 of 20 positions \(first: row 2, column 3\): over 9 images"
    with pytest.raises(ArgumentError, match=message):
        fitted(z).whitener()


def test_too_few_images() -> None:
    fit = fitted(np.zeros((0, 3, 4, 5), np.float32))
    assert fit.count == 0
    with pytest.raises(ArgumentError, match="no image seen"):
        _ = fit.mean
    fit.update(normal(1, 3, 4, 5))
    for call in (lambda: fit.covariance, fit.whitener):
        with pytest.raises(ArgumentError, match="1 images seen, a covariance needs at least 2"):
            call()


def test_wrong_input_says_what_was_found() -> None:
    fit = fitted(normal(4, 3, 4, 5))
    with pytest.raises(ArgumentError, match=r"new maps are \[2, 4, 5\].*before \[3, 4, 5\]"):
        fit.update(normal(4, 2, 4, 5))
    with pytest.raises(ArgumentError, match=r"new maps are \[3, 5, 5\].*before \[3, 4, 5\]"):
        fit.merge(fitted(normal(4, 3, 5, 5)))
    with pytest.raises(ArgumentError, match=r"float32 of shape \[4, 3\], expected.*\[N,C,H,W\]"):
        fit.update(normal(4, 3))
    with pytest.raises(ArgumentError, match="int64"):
        fit.update(np.zeros((4, 3, 4, 5), np.int64))
    with pytest.raises(ArgumentError, match="shrinkage is 2"):
        fit.whitener(shrinkage=2)
    z = normal(2, 3, 4, 5)
    z[1, 2, 0, 1] = np.nan
    with pytest.raises(ArgumentError, match=r"1 of 120 feature values are not finite \(first in channel 2\)"):
        fit.update(z)
    assert fit.count == 4
