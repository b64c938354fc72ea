"""How `ocad` scores."""

from __future__ import annotations

from normscan.families.ocad.config import OcadConfig
from normscan.scoring.spec import Group, Input, ScoringSpec, Term


def ocad_spec(config: OcadConfig) -> ScoringSpec:
    """Weighted sum of SSIM and L1 distance of the reconstruction, and of the latent's Mahalanobis distance."""
    pair = ("reconstruction", "image")
    terms = (
        Term("distance", pair, metric="ssim", window=11, pool=config.ssim_pool, weight=config.ssim_weight),
        Term("distance", pair, metric="l1", pool=config.l1_pool, weight=config.l1_weight),
        Term(
            "gaussian",
            ("latent",),
            stats="latent",
            form="full",
            per="position_shared",
            pool=config.latent_pool,
            weight=config.latent_weight,
        ),
    )
    return ScoringSpec(
        family="ocad",
        input=Input(
            config.size,
            config.size,
            config.channels,
            config.resize,
            mean=(0.0,) * config.channels,
            std=(1.0,) * config.channels,
        ),
        terms=terms,
        group=None if config.group is None else Group(config.group),
    )
