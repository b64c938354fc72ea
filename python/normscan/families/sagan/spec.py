"""How `sagan` scores."""

from __future__ import annotations

from normscan.families.sagan.config import SaganConfig
from normscan.scoring.spec import Input, Map, ScoringSpec, Term


def sagan_spec(config: SaganConfig) -> ScoringSpec:
    """Mean |x - G(x)| / 2, in shares of the whole range from black to white: a scale of 2, for x is in -1..1."""
    half = (0.5,) * config.channels
    return ScoringSpec(
        family="sagan",
        input=Input(config.size, config.size, config.channels, config.resize, half, half),
        terms=(Term("distance", ("restored", "image"), metric="l1", scale=2.0),),
        map=Map("input", config.blur_sigma),
    )
