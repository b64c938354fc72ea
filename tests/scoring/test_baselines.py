"""Baselines on small pictures: they see what they should, the same way every time, from a stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from normscan.errors import ArgumentError
from normscan.scoring import baselines

COLOUR = ["colour_gaussian", "random_network"]


def pictures(n: int, seed: int, tint: tuple[float, float, float] = (0.7, 0.5, 0.5)) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    base = np.asarray(tint) + 0.05 * random.standard_normal((n, 1, 1, 3))
    return list((np.clip(base + 0.05 * random.standard_normal((n, 24, 20, 3)), 0, 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("name", COLOUR)
def test_another_colour_is_far(name: str) -> None:
    train = pictures(24, 0)
    scores = baselines.score(name, train, pictures(15, 1) + pictures(15, 2, (0.2, 0.2, 0.6)))
    assert scores.dtype == np.float64
    assert scores[15:].min() > scores[:15].max()
    np.testing.assert_array_equal(scores[:3], baselines.score(name, train, pictures(15, 1)[:3]))


def test_mean_brightness_is_the_luminance_and_keeps_its_sign() -> None:
    red = np.zeros((3, 4, 3), np.uint8)
    red[..., 0] = 255
    half = np.full((3, 4), 0.5, np.float32)
    white = np.full((3, 4), 65535, np.uint16)
    np.testing.assert_allclose(baselines.score("mean_brightness", [], [red, half, white]), [0.299, 0.5, 1], rtol=1e-6)


@pytest.mark.parametrize("name", COLOUR)
def test_types_of_pixels_agree(name: str) -> None:
    train = pictures(12, 0)
    picture = pictures(1, 3)[0]
    versions = [picture, picture.astype(np.uint16) * 257, picture.astype(np.float32) / 255]
    scores = baselines.score(name, train, versions)
    np.testing.assert_allclose(scores, scores[0], rtol=1e-3)


@pytest.mark.parametrize("name", COLOUR)
def test_grey_pictures(name: str) -> None:
    train = [p[..., 0] for p in pictures(12, 0)]
    scores = baselines.score(name, train, [train[0], 255 - train[0]])
    assert np.isfinite(scores).all()
    assert scores[1] > scores[0]


@pytest.mark.parametrize("name", sorted(baselines.BASELINES))
def test_images_are_read_once_and_one_at_a_time(name: str) -> None:
    alive: list[int] = []

    def stream() -> Iterator[np.ndarray]:
        for index, picture in enumerate(pictures(4, 0)):
            alive.append(index)
            yield picture

    assert len(baselines.score(name, stream(), stream())) == 4
    assert alive == [*range(4)] * (1 if name == "mean_brightness" else 2)


def test_errors_say_what_was_found() -> None:
    with pytest.raises(ArgumentError, match="'colour' is unknown, expected one of colour_gaussian"):
        baselines.score("colour", [], [])
    with pytest.raises(ArgumentError, match="colour_gaussian: found 1 training images"):
        baselines.score("colour_gaussian", pictures(1, 0), [])
    with pytest.raises(ArgumentError, match=r"float64 of shape \[2, 2\]"):
        baselines.score("mean_brightness", [], [np.zeros((2, 2))])
    broken = np.zeros((2, 2, 3), np.float32)
    broken[0, 0, 0] = np.nan
    with pytest.raises(ArgumentError, match="1 of 12 pixel values are not finite"):
        baselines.score("mean_brightness", [], [broken])
