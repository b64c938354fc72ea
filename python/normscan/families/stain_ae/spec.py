"""How `stain_ae` scores."""

from __future__ import annotations

from normscan.families.stain_ae.config import StainAeConfig
from normscan.scoring.spec import Input, Map, ScoringSpec, Term

_OUTPUTS = ("reconstruction", "image")


def stain_ae_spec(config: StainAeConfig) -> ScoringSpec:
    """The redness that the reconstruction does not give back (arXiv 2309.16053), or its distance in all colours."""
    return ScoringSpec(
        family="stain_ae",
        input=Input(config.size, config.size, 3, config.resize),
        terms=(_term(config),),
        pool_at="image",
        pool=config.pool,
        map=Map("input", config.blur_sigma),
    )


def _term(config: StainAeConfig) -> Term:
    if config.score == "l2":
        return Term("distance", _OUTPUTS, metric="l2")
    if config.score == "residual":
        return Term("stain", _OUTPUTS, metric="residual", cut=config.cut)
    return Term(
        "stain",
        _OUTPUTS,
        metric="red_ratio",
        hue=config.hue,
        least_saturation=config.least_saturation,
        window=config.window,
    )
