"""How `sepiad` scores."""

from __future__ import annotations

from normscan.families.sepiad.config import SepiadConfig
from normscan.scoring.spec import Group, Input, Map, ScoringSpec, Term


def sepiad_spec(config: SepiadConfig) -> ScoringSpec:
    """Relative L1 between the features of the reconstruction and of the original (PIAD, eq. 4), at every level."""
    levels = range(1, len(config.layers) + 1)
    return ScoringSpec(
        family="sepiad",
        input=Input(config.size, config.size, 3, config.resize, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        terms=tuple(
            Term("distance", (f"rebuilt_{k}", f"features_{k}"), metric="relative_l1", pool=config.pool) for k in levels
        ),
        fuse="sum",
        pool_at="term",
        map=Map("input", config.blur_sigma),
        group=None if config.group is None else Group(config.group),
    )
