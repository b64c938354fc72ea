"""Statistics of Gaussian terms: each term is fitted as its `per` and `form` say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import nn

from arrays import normal
from normscan.data.augment import sample_rng
from normscan.data.pseudo import MAKERS, plant_anomaly
from normscan.data.sample import Record
from normscan.errors import ConfigError
from normscan.families.config import Config
from normscan.scoring.scorer import Scorer, prepare
from normscan.scoring.spec import Input, ScoringSpec, Term
from normscan.train.fit import Validator, fit_statistics
from normscan.train.loader import Pictures, planted


class Outputs(NamedTuple):
    latent: torch.Tensor


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Outputs:
        return Outputs(x * self.gain)


SHAPES = {
    ("position", "full"): ((5, 3, 4), (3, 4, 15)),
    ("position_shared", "full"): ((5,), (5, 5)),
    ("position_shared", "diagonal"): ((5,), (5,)),
    ("position_shared", "isotropic"): ((5,), (1,)),
}


@pytest.mark.parametrize(("per", "form"), SHAPES)
def test_statistics_are_what_the_scorer_takes(per: str, form: str) -> None:
    term = Term("gaussian", ("latent",), stats="latent", form=form, per=per)
    spec = ScoringSpec("test", Input(3, 4, 3), (term,))
    x = normal(200, 5, 3, 4) * np.arange(1, 6, dtype=np.float32)[:, None, None]
    stats = fit_statistics(Identity(), spec, iter(np.split(x, 5)))
    assert (stats["latent.mean"].shape, stats["latent.whitener"].shape) == SHAPES[per, form]
    scores = Scorer(spec, stats).score({"latent": x}).scores
    assert scores.mean() == pytest.approx(5, rel=0.05)  # squared standard deviations: one a channel


class Watching(Identity):
    """Keeps every picture that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def forward(self, x: torch.Tensor) -> Outputs:
        self.seen.extend(x.numpy())
        return super().forward(x)


SPEC = ScoringSpec(
    "test", Input(16, 16), (Term("gaussian", ("latent",), stats="latent", form="diagonal", per="position_shared"),)
)


def normals(skin: Path, count: int) -> Pictures:
    return Pictures([Record(path, label=0) for path in sorted((skin / "train" / "normal").glob("*.png"))[:count]])


@pytest.mark.parametrize(("count", "expected"), [(5, 65), (48, 96)])
def test_few_validation_pictures_are_planted_several_times(skin: Path, count: int, expected: int) -> None:
    """Each time another anomaly: one apiece in nine pictures would choose a checkpoint by chance."""
    network = Watching()
    found = Validator(SPEC, *[normals(skin, count)] * 2, seed=0, batch_size=16)(network)
    assert len(network.seen) == 3 * count + expected  # for statistics, for scales, as they are, planted
    planted = np.stack(network.seen[-expected:])
    assert len(np.unique(planted.reshape(expected, -1), axis=0)) == expected
    assert len(found.scores) == count
    assert found.auroc > 0.5


def plants(pictures: Pictures, **plant: str) -> np.ndarray:
    """The 64 pictures that a Validator plants."""
    network = Watching()
    Validator(SPEC, pictures, pictures, seed=0, batch_size=16, **plant)(network)
    return np.stack(network.seen[-64:])


def test_every_maker_plants_its_own(skin: Path) -> None:
    """The one that is asked for; by default the mixed one, drawn as ever."""
    pictures = normals(skin, 8)
    planted = {name: plants(pictures, plant=name) for name in MAKERS}
    for name, found in planted.items():
        for index in (3, 60):
            rng = sample_rng(0, -1, index)
            donor = pictures[(index % 8 + 1 + int(rng.integers(7))) % 8]
            direct = MAKERS[name](pictures[index % 8], donor, rng)[0]
            np.testing.assert_array_equal(found[index], prepare(direct, SPEC.input))
    assert len({found.tobytes() for found in planted.values()}) == len(MAKERS)
    assert MAKERS["mixed"] is plant_anomaly
    np.testing.assert_array_equal(plants(pictures), planted["mixed"])


def test_another_spec_is_judged_by_the_same_maker(skin: Path) -> None:
    pictures = normals(skin, 4)
    first, second = Watching(), Watching()
    Validator(SPEC, pictures, pictures, seed=0, batch_size=16, plant="fpi").judged_by(SPEC)(first)
    Validator(SPEC, pictures, pictures, seed=0, batch_size=16, plant="fpi")(second)
    np.testing.assert_array_equal(first.seen, second.seen)


class Restored(NamedTuple):
    image: torch.Tensor
    mended: torch.Tensor


class Flattening(nn.Module):
    """Gives back a constant picture."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: torch.Tensor) -> Restored:
        return Restored(x, self.level.expand_as(x).contiguous())


def test_restoration_is_judged_by_the_normal_picture(skin: Path) -> None:
    """Half by what becomes of it, half by what becomes of it with an anomaly: here the same, and then not."""
    pictures = normals(skin, 5)
    spec = ScoringSpec("test", Input(16, 16), (Term("distance", ("mended", "image"), metric="l1"),))
    validator = Validator(spec, pictures, pictures, seed=0, batch_size=4).judged_by(None, "mended")
    whole = np.stack([prepare(pictures[i], spec.input) for i in range(5)])
    found = validator(Flattening(0.25))
    assert found.restoration == pytest.approx(np.abs(whole - 0.25).mean(), rel=1e-5)
    assert found.gain == -found.restoration
    kept = validator.judged_by(None, "image")(Flattening(0.25))  # gives back the anomaly as well
    times = 13  # 65 planted anomalies in 5 pictures
    damaged = planted(pictures, spec.input, seed=0)
    bad = np.stack([damaged(i) for i in range(times * 5)])
    assert kept.restoration == pytest.approx(np.abs(bad - np.tile(whole, (times, 1, 1, 1))).mean() / 2, rel=1e-5)
    plain_judge = validator.judged_by(None)(Flattening(0.25))
    assert plain_judge.restoration is None
    assert plain_judge.gain == plain_judge.separation


def test_a_configuration_names_a_maker() -> None:
    assert get_args(Config.model_fields["plant"].annotation) == tuple(MAKERS)
    assert Config().plant == "mixed"
    with pytest.raises(ConfigError, match=r"config.plant: .*'mixed', 'fpi', .*found 'poison'"):
        Config.parse({"plant": "poison"})
