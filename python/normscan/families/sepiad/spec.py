"""How `sepiad` scores."""

from __future__ import annotations

from normscan.families.sepiad.config import SepiadConfig
from normscan.scoring.spec import Group, Input, Map, ScoringSpec, Term


def sepiad_spec(config: SepiadConfig) -> ScoringSpec:
    """How far the features of the reconstruction are from the original's (PIAD, eq. 4: relative L1), at every level."""
    levels = range(1, len(config.layers) + 1)
    return ScoringSpec(
        family="sepiad",
        input=Input(config.size, config.size, 3, config.resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        terms=tuple(
            Term("distance", (f"rebuilt_{k}", f"features_{k}"), metric=config.metric, pool=config.pool) for k in levels
        ),
        fuse="sum",
        pool_at="term",
        map=Map("input", config.blur_sigma),
        group=None if config.group is None else Group(config.group),
    )
