"""`singan`: the paper's numbers, what a sample keeps and what it changes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from image_files import disc
from normscan.data.generated import generated_records, read_generated
from normscan.data.read import read_image, write_image
from normscan.errors import ConfigError, ImageError, InputError, UsageError
from normscan.generate import generator
from normscan.generate.card import Source
from normscan.generate.model import Model
from normscan.generate.pictures import read_picture, to_pixels
from normscan.generate.sample import sample
from normscan.generate.singan.config import SinganConfig
from normscan.generate.singan.network import SinganNetwork, convolutions
from normscan.generate.singan.pyramid import pyramid_sizes, resized, scaled_sizes
from normscan.generate.singan.sample import singan_network
from normscan.generate.singan.training import Game, SinganTraining
from normscan.generate.train import train

TINY = generator("singan").tiny
CPU = torch.device("cpu")


class NoBar:
    def advance(self, count: int = 1, **figures: float) -> None:
        pass


def drawn(model: Path, folder: Path, **choices: object) -> list[np.ndarray]:
    """Four samples' pixels."""
    options = {key: value for key, value in choices.items() if key not in ("seed", "count")}
    given = {key: int(value) for key, value in choices.items() if key in ("seed", "count")}  # type: ignore[call-overload]
    sample(model, folder, **{"count": 4, **given}, options=options)
    return [read_image(row.path) for row in read_generated(folder)]


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Shares of 4 x 4 x 4 colours."""
    index = (pixels // 64).reshape(-1, 3) @ np.array([16, 4, 1])
    return np.bincount(index, minlength=64) / len(index)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of histograms: 0 equal, 1 nothing shared."""
    return float(np.abs(a - b).sum() / 2)


# The paper's numbers


def test_the_pyramid_of_the_paper() -> None:
    sizes = pyramid_sizes(500, 500, SinganConfig())
    assert sizes[0] == (25, 25)
    assert sizes[-1] == (250, 250)
    assert len(sizes) == 9
    factors = [a[0] / b[0] for a, b in pairwise(sizes)]
    assert factors == pytest.approx([0.75] * 8, abs=0.02)
    wide = pyramid_sizes(120, 300, SinganConfig())
    assert wide[0] == (25, round(25 * 300 / 120))
    assert wide[-1] == (100, 250)
    assert pyramid_sizes(25, 30, SinganConfig()) == ((25, 30),)
    small = SinganConfig.preset("small")
    assert small.iterations == 200
    for height, width in ((256, 256), (80, 300), (25, 25)):
        assert len(pyramid_sizes(height, width, small)) == 5


def test_channels_double_every_four_scales() -> None:
    config = SinganConfig()
    assert [config.width_at(n) for n in range(10)] == [32] * 4 + [64] * 4 + [128] * 2
    assert config.width_at(31) == 128


def test_five_layers() -> None:
    network = convolutions(3, 1, 32, 5)
    kinds = [type(module) for module in network.modules() if not isinstance(module, nn.Sequential)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * 4 + [nn.Conv2d]
    assert network(torch.zeros(1, 3, 11, 11)).shape == (1, 1, 1, 1)  # a critic sees 11 pixels at once


def game(iterations: int = 5, critic: nn.Module | None = None, **changes: object) -> Game:
    config = SinganConfig.parse({**TINY, "iterations": iterations, **changes})
    network = SinganNetwork(config, 3, [(12, 14)])
    random = torch.Generator().manual_seed(0)
    real = torch.rand(1, 3, 12, 14, generator=random) * 2 - 1
    scale = network.scales[0]
    critic = critic or convolutions(3, 1, 4, 5)
    return Game(config, network, 0, scale, critic, real, torch.zeros_like(real), random)  # type: ignore[arg-type]


def test_three_and_three_steps_and_a_tenth_of_the_rate_at_80_percent() -> None:
    one = game(iterations=10)
    rates = []
    for _ in range(10):
        one.iterate()
        rates.append(one._optimisers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([5e-4] * 7 + [5e-5] * 3)  # the eighth iteration is the last at the full rate
    for optimiser, part in zip(one._optimisers, (one.critic, one.generator), strict=True):
        assert optimiser.state[next(part.parameters())]["step"] == 30
        assert optimiser.param_groups[0]["betas"] == (0.5, 0.999)


def test_the_penalty_of_a_linear_critic() -> None:
    linear = nn.Conv2d(3, 1, 1)
    nn.init.constant_(linear.weight, 2.0)  # a gradient of (2, 2, 2) at every pixel
    one = game(critic=linear)
    assert one._penalty(torch.zeros_like(one.real)).item() == pytest.approx((np.sqrt(12) - 1) ** 2, rel=1e-5)
    nn.init.zeros_(linear.weight)
    one._penalty(torch.zeros_like(one.real)).backward()
    assert linear.weight.grad is not None
    assert bool(linear.weight.grad.isfinite().all())  # a norm has no slope at 0, where training may well begin


def test_amplitudes_follow_the_reconstruction(disc_file: Path, learnt: Path) -> None:
    network = singan_network(Model.open(learnt))
    picture = read_picture(disc_file)
    assert network.amplitudes[0] == 1
    for n, size in list(enumerate(network.own_sizes()))[1:]:
        below = resized(network.reconstruct(n), size)  # type: ignore[arg-type]
        rmse = (below - resized(picture, size)).square().mean().sqrt()
        assert float(network.amplitudes[n]) == pytest.approx(0.1 * float(rmse), rel=1e-4)


def test_a_scale_starts_from_the_coarser_one(disc_file: Path) -> None:
    config = SinganConfig.parse({**TINY, "double_every": 2})
    training = SinganTraining(config, [Source(disc_file)], CPU)
    training.run(0, NoBar())
    same = training._begin(1).generator.state_dict()
    coarser = training.network.scales[0].state_dict()
    assert all(bool((same[name] == value).all()) for name, value in coarser.items())
    training.run(1, NoBar())
    before = training.network.scales[1].state_dict()["convolutions.0.0.weight"].clone()
    wider = training._begin(2).generator.state_dict()["convolutions.0.0.weight"]
    assert len(wider) == 2 * len(before)
    training.run(2, NoBar())
    assert bool((training.network.scales[1].state_dict()["convolutions.0.0.weight"] == before).all())


# What a sample keeps, and what it changes


def test_the_reconstruction_is_the_picture(disc_file: Path, learnt: Path) -> None:
    network = singan_network(Model.open(learnt))
    real = resized(read_picture(disc_file), network.own_sizes()[-1])
    found = network.reconstruct(3)
    assert found is not None
    rmse = float((found - real).square().mean().sqrt())
    blank = float((real.mean((2, 3), keepdim=True) - real).square().mean().sqrt())
    print(f"reconstruction RMSE {rmse:.3f} in -1..1, that of the mean colour {blank:.3f}")
    assert rmse < blank / 2


def test_samples_have_its_colours_and_differ(disc_file: Path, learnt: Path, tmp_path: Path) -> None:
    pictures = drawn(learnt, tmp_path / "a")
    real = histogram(cv2.resize(read_image(disc_file), (32, 27), interpolation=cv2.INTER_AREA))
    found = histogram(np.concatenate([picture.reshape(-1, 3) for picture in pictures]))
    noise = histogram(np.random.default_rng(0).integers(0, 256, (1000, 3)).astype(np.uint8))
    print(f"colour histograms: samples {distance(real, found):.3f}, noise {distance(real, noise):.3f}")
    assert distance(real, found) < 0.5
    assert distance(real, noise) > 0.7
    differences = [float(np.abs(a.astype(float) - b).mean()) for a, b in pairwise(pictures)]
    assert min(differences) > 3  # of 255 levels
    assert len({round(float(picture.mean()), 3) for picture in pictures}) == 4


def test_the_same_seed_gives_the_same_pixels(learnt: Path, tmp_path: Path) -> None:
    four, again = (drawn(learnt, tmp_path / name, seed=5) for name in ("a", "b"))
    assert all(np.array_equal(a, b) for a, b in zip(four, again, strict=True))
    (last,) = drawn(learnt, tmp_path / "c", seed=8, count=1)
    np.testing.assert_array_equal(last, four[3])  # a picture depends on its own seed alone


def test_a_later_start_keeps_more(disc_file: Path, learnt: Path, tmp_path: Path) -> None:
    real = cv2.resize(read_image(disc_file), (32, 27), interpolation=cv2.INTER_AREA).astype(float)
    errors = [
        float(np.mean([np.abs(real - x).mean() for x in drawn(learnt, tmp_path / str(start), start_scale=start)]))
        for start in range(3)
    ]
    print(f"mean distance from the picture, by start scale: {[round(e, 1) for e in errors]}")
    assert errors[0] > 1.5 * errors[1]
    assert errors[0] > 1.5 * errors[2]


def test_more_noise_varies_more_and_none_reconstructs(learnt: Path, tmp_path: Path) -> None:
    network = singan_network(Model.open(learnt))
    found = network.reconstruct(3)
    assert found is not None
    reconstruction = to_pixels(found)
    for picture in drawn(learnt, tmp_path / "none", start_scale=1, noise=0):
        np.testing.assert_array_equal(picture, reconstruction)
    spread = [
        float(np.std(drawn(learnt, tmp_path / str(noise), start_scale=1, noise=noise), axis=0).mean())
        for noise in (1, 10)
    ]
    print(f"standard deviation of samples from scale 1 on, noise 1 and 10: {spread[0]:.1f}, {spread[1]:.1f} of 255")
    assert spread[1] > 2 * spread[0] > 0


def test_any_size(learnt: Path, tmp_path: Path) -> None:
    for size, start in (((20, 90), 0), ((61, 33), 1), ((8, 8), 2)):
        pictures = drawn(learnt, tmp_path / f"{size}", size=size, start_scale=start, count=1)
        assert pictures[0].shape == (*size, 3)
    assert scaled_sizes(((12, 14), (27, 32)), (54, 64)) == ((24, 28), (54, 64))


def test_paint_to_image(learnt: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "mirrored.png", disc()[:, ::-1].copy())
    painted = drawn(learnt, tmp_path / "a", input=tmp_path / "mirrored.png", start_scale=1)
    assert {row.parent for row in read_generated(tmp_path / "a")} == {tmp_path / "mirrored.png"}
    own = drawn(learnt, tmp_path / "b", start_scale=1)
    places = [np.mean([np.nonzero(x[:, :, 0] < 120)[1].mean() for x in pictures]) for pictures in (own, painted)]
    print(f"column of the disc's centre, of 32: its own {places[0]:.1f}, mirrored {places[1]:.1f}")
    assert places[1] > places[0] + 1.5


def test_the_table(disc_file: Path, learnt: Path, tmp_path: Path) -> None:
    sample(learnt, tmp_path / "a", count=2, seed=7)
    rows = read_generated(tmp_path / "a")
    assert [(r.origin, r.generator, r.seed, r.parent) for r in rows] == [
        ("generated", "singan", 7, disc_file),
        ("generated", "singan", 8, disc_file),
    ]
    assert {r.group for r in generated_records(tmp_path / "a")} == {str(disc_file)}
    with pytest.raises(UsageError, match="--force"):
        sample(learnt, tmp_path / "a")
    sample(learnt, tmp_path / "a", count=1, force=True)
    assert len(list((tmp_path / "a" / "images").iterdir())) == 1


def test_a_grey_template_with_alpha(tmp_path: Path) -> None:
    pixels = np.full((24, 30, 4), 255, np.uint8)
    pixels[:, :, :3] = disc(24, 30)
    pixels[:4, :, 3] = 0
    assert cv2.imwrite(str(tmp_path / "alpha.png"), pixels)
    write_image(tmp_path / "grey.png", disc(24, 30)[:, :, 0])
    for name, channels in (("alpha", 3), ("grey", 1)):
        template = tmp_path / f"{name}.png"
        model = train("singan", None, tmp_path / name, template=template, preset="paper", overrides=TINY)
        (picture,) = drawn(model.folder, tmp_path / f"{name}-samples", count=1)
        assert picture.ndim == (3 if channels == 3 else 2)
        assert read_generated(tmp_path / f"{name}-samples")[0].origin == "generated_from_template"
    options = {"input": tmp_path / "alpha.png", "start_scale": 1}
    with pytest.raises(InputError, match=r"alpha\.png: found 3 channels; expected 1"):
        sample(tmp_path / "grey", tmp_path / "never", options=options)


# What is refused


@pytest.mark.parametrize(
    ("height", "width", "text"),
    [(24, 60, "found 24 x 60 pixels"), (40, 1000, "4 on the shorter side"), (1, 1, "found 1 x 1 pixels")],
)
def test_a_picture_that_is_too_small(tmp_path: Path, height: int, width: int, text: str) -> None:
    write_image(tmp_path / "a.png", np.zeros((height, width, 3), np.uint8))
    with pytest.raises(InputError, match=text) as error:
        train("singan", tmp_path / "a.png", tmp_path / "model")
    assert "a.png" in str(error.value)
    assert not (tmp_path / "model").exists()


def test_sources(disc_file: Path, tmp_path: Path) -> None:
    sources = generator("singan").sources
    assert sources(disc_file.parent, None) == [Source(disc_file)]
    assert sources(None, disc_file) == [Source(disc_file, "template")]
    with pytest.raises(UsageError, match="either -i IMAGE or --template IMAGE"):
        sources(disc_file, disc_file)
    write_image(tmp_path / "a.png", disc())
    write_image(tmp_path / "b.png", disc())
    with pytest.raises(InputError, match="found 2 pictures"):
        sources(tmp_path, None)
    with pytest.raises(InputError, match="no such file"):
        sources(tmp_path / "c.png", None)
    with pytest.raises(ImageError, match="no such file"):
        train("singan", None, tmp_path / "model", template=tmp_path / "c.png")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"start_scale": 3}, r"start_scale is 3; expected 0 \(the coarsest\) to 2"),
        ({"noise": -1}, "noise"),
        ({"input": "x.png"}, "no effect at start_scale 0"),
        ({"size": [4, 40]}, "size"),
        ({"size": [40]}, "size"),
        ({"sise": [40, 40]}, "did you mean 'size'"),
        ({"input": "nowhere.png", "start_scale": 1}, r"nowhere\.png"),
    ],
)
def test_wrong_options(learnt: Path, tmp_path: Path, options: dict[str, object], text: str) -> None:
    with pytest.raises((UsageError, InputError), match=text):
        sample(learnt, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{"count": 0}, {"seed": -1}, {"seed": 2**63 - 1}])
def test_wrong_counts(learnt: Path, tmp_path: Path, given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 1"):
        sample(learnt, tmp_path / "out", **given)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"min_size": 10}, "min_size: 10, expected at least 11"),
        ({"max_size": 20}, "expected at least min_size"),
        ({"factor": 1}, "factor"),
        ({"scales": 1}, "scales"),
    ],
)
def test_wrong_configurations(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SinganConfig.preset("paper", changes)
