"""Statistics of Gaussian terms: each term is fitted as its `per` and `form` say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from arrays import normal
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import Input, ScoringSpec, Term
from normscan.train.fit import fit_statistics


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
