"""Every number of HistAuGAN, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.generate.card import GeneratorConfig

STRIDE = 4
"""Picture pixels a content pixel: two convolutions of stride 2. Sides of pictures are multiples of it."""


class HistauganConfig(GeneratorConfig):
    """The defaults are the preset `paper`."""

    size: int = Field(256, ge=16, le=2048, description="shorter side that pictures are brought to; HistAuGAN: 256")
    crop: int = Field(216, ge=16, le=2048, description="side of the squares that training sees; HistAuGAN: 216")
    channels: Literal[1, 3] = Field(3, description="1 grey, 3 colour")
    width: int = Field(64, ge=2, le=1024, description="of the first convolutions; HistAuGAN: 64")
    blocks: int = Field(4, ge=1, le=32, description="residual blocks of the content encoder; HistAuGAN: 4")
    style: int = Field(8, ge=1, le=256, description="numbers of a style; HistAuGAN: 8")
    domains: Literal["one", "folders", "clusters"] = Field(
        "one", description="all pictures are one; a folder each; or clusters of colour"
    )
    clusters: int = Field(2, ge=2, le=64, description="how many, where domains are clusters")
    template_share: float = Field(
        2 / 11, gt=0, lt=1, description="of the draws, where there is a template; source: 2/11"
    )
    flip: bool = Field(True, description="mirror, left-right; HistAuGAN does")
    epochs: int = Field(100, ge=1, le=1_000_000, description="of as many draws as there are pictures")
    batch_size: int = Field(8, ge=2, le=1024, multiple_of=2, description="pictures a step, in two halves")
    learning_rate: float = Field(1e-4, gt=0, description="HistAuGAN: Adam 1e-4 (0.5, 0.999)")
    critic_learning_rate: float = Field(1e-4, gt=0, description="of the image critics; HistAuGAN: 1e-4")
    content_learning_rate: float = Field(4e-5, gt=0, description="of the content critic; HistAuGAN: 4e-5")
    domain_weight: float = Field(5.0, ge=0, description="HistAuGAN: 5")
    reconstruction_weight: float = Field(10.0, ge=0, description="own and cross-cycle L1; HistAuGAN: 10")
    content_weight: float = Field(0.01, ge=0, description="HistAuGAN: 0.01")
    kl_weight: float = Field(0.01, ge=0, description="HistAuGAN: 0.01")
    latent_weight: float = Field(10.0, ge=0, description="HistAuGAN: 10")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Ours: minutes on two CPU cores. The critics keep the paper's rate, and the domain counts less: otherwise what
        # they ask for (colours that exaggerate the domain) drowns the reconstruction in so few steps.
        "small": {
            "size": 64,
            "crop": 56,
            "width": 16,
            "blocks": 2,
            "epochs": 20,
            "batch_size": 4,
            "learning_rate": 5e-4,
            "domain_weight": 1.0,
        },
    }

    @model_validator(mode="after")
    def _fits(self) -> HistauganConfig:
        for name in ("size", "crop"):
            if getattr(self, name) % STRIDE:
                raise ConfigError(f"config.{name}: {getattr(self, name)} is not a multiple of {STRIDE}")
        if self.crop > self.size:
            raise ConfigError(f"config.crop: {self.crop}, expected at most size ({self.size})")
        return self
