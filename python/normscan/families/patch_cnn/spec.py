"""How `patch_cnn` scores."""

from __future__ import annotations

from normscan.families.patch_cnn.config import PatchCnnConfig
from normscan.nn.features import IMAGENET_MEAN, IMAGENET_STD
from normscan.scoring.spec import Input, ScoringSpec, Term


def patch_cnn_spec(config: PatchCnnConfig) -> ScoringSpec:
    """The probability itself is the score, in no other unit."""
    return ScoringSpec(
        family="patch_cnn",
        input=Input(config.size, config.size, 3, config.resize, IMAGENET_MEAN, IMAGENET_STD),
        terms=(Term("value", ("probability",), per="vector", scale=1.0),),
    )
