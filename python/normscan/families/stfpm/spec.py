"""How `stfpm` scores, and by what its teacher is judged while there is no student yet."""

from __future__ import annotations

from normscan.families.stfpm.config import StfpmConfig
from normscan.nn.features import IMAGENET_MEAN, IMAGENET_STD
from normscan.scoring.spec import Group, Input, Map, ScoringSpec, Term

LEVELS = (1, 2, 3)


def stfpm_spec(config: StfpmConfig) -> ScoringSpec:
    """Cosine distance of each level, fused over the levels, blurred, pooled over the picture."""
    return ScoringSpec(
        family="stfpm",
        input=_input(config),
        terms=tuple(Term("distance", (f"student_{i}", f"teacher_{i}"), metric="cosine") for i in LEVELS),
        fuse=config.fuse,
        pool_at="image",
        pool=config.pool,
        map=Map("input", config.blur_sigma),
        group=None if config.group is None else Group(config.group),
    )


def teacher_spec(config: StfpmConfig) -> ScoringSpec:
    """How far the teacher's features lie from the Gaussian of normal ones: good features tell planted anomalies so."""
    return ScoringSpec(
        family="stfpm",
        input=_input(config),
        terms=tuple(
            Term("gaussian", (f"teacher_{i}",), stats=f"teacher_{i}", form="full", per="position_shared")
            for i in LEVELS
        ),
        pool_at="image",
        pool="max",
        map=Map("input", config.blur_sigma),
    )


def _input(config: StfpmConfig) -> Input:
    return Input(config.size, config.size, config.channels, config.resize, IMAGENET_MEAN, IMAGENET_STD)
