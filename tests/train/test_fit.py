"""Statistics of Gaussian terms: each term is fitted as its `per` and `form` say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from arrays import normal
from normscan.data.sample import Record
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import Input, ScoringSpec, Term
from normscan.train.fit import Validator, fit_statistics
from normscan.train.loader import Pictures


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


@pytest.mark.parametrize(("count", "expected"), [(5, 65), (48, 96)])
def test_few_validation_pictures_are_planted_several_times(skin: Path, count: int, expected: int) -> None:
    """Each time another anomaly: one apiece in nine pictures would choose a checkpoint by chance."""
    seen: list[np.ndarray] = []

    class Watching(Identity):
        def forward(self, x: torch.Tensor) -> Outputs:
            seen.extend(x.numpy())
            return super().forward(x)

    records = [Record(path, label=0) for path in sorted((skin / "train" / "normal").glob("*.png"))[:count]]
    term = Term("gaussian", ("latent",), stats="latent", form="diagonal", per="position_shared")
    validator = Validator(
        ScoringSpec("test", Input(16, 16), (term,)), Pictures(records), Pictures(records), seed=0, batch_size=16
    )
    found = validator(Watching())
    assert len(seen) == 3 * count + expected  # for statistics, for scales, as they are, planted
    planted = np.stack(seen[-expected:])
    assert len(np.unique(planted.reshape(expected, -1), axis=0)) == expected
    assert len(found.scores) == count
    assert found.auroc > 0.5
