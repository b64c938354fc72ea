"""Every number of `ocad`, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.families.config import Config
from normscan.scoring.spec import Pool

Width = Annotated[int, Field(ge=1, le=4096)]


class OcadConfig(Config):
    """The defaults are the preset `paper`."""

    size: int = Field(176, ge=16, le=1024, description="OCAD: 176")
    widths: tuple[Width, ...] = Field(
        (256, 128, 64), min_length=2, description="OCAD's encoder; the last is the latent"
    )
    attention_after: int = Field(2, ge=1, description="the encoder stage that attention follows; OCAD: the second")
    heads: int = Field(4, ge=1, le=64, description="OCAD: 4")
    key_size: int = Field(64, ge=1, le=1024, description="OCAD: 64")
    latent_relu: bool = Field(True, description="OCAD ends its encoder in a ReLU")
    padding: Literal["zeros", "replicate"] = Field("zeros", description="of the convolutions; OCAD: zeros")
    critic_width: int = Field(
        32, ge=1, le=1024, description="ours: the critic sees pictures (IGD), so it is convolutional"
    )
    noise: float = Field(0.05, ge=0, description="OCAD: x2 = x1 + N(0, 0.05)")
    reconstruction_weight: float = Field(0.5, ge=0, description="OCAD: 0.5 (MAE + 1 - SSIM)")
    critic_weight: float = Field(0.1, ge=0, description="OCAD and IGD: 0.1")
    gaussian_weight: float = Field(1.0, ge=0, description="OCAD: 1, for each of z1 and z2")
    learning_rate: float = Field(1e-4, gt=0, description="OCAD: Adam 1e-4")
    halve_after: int = Field(5, ge=1, description="OCAD: halve the rate after 5 validations without gain")
    gradient_clip: float = Field(1.0, gt=0, description="ours: SSIM's gradient is steep on flat regions")
    rotate: float = Field(20.0, ge=0, le=180, description="OCAD: degrees")
    shift: float = Field(0.2, ge=0, le=0.5, description="OCAD: share of the side")
    shear: float = Field(0.2, ge=0, le=0.5, description="OCAD")
    zoom: float = Field(0.2, ge=0, lt=1, description="OCAD")
    flip: bool = Field(True, description="OCAD")
    ssim_weight: float = Field(0.42, ge=0, description="ours: IGD's 0.85 share of the reconstruction half")
    l1_weight: float = Field(0.08, ge=0, description="ours: the other 0.15")
    latent_weight: float = Field(0.5, ge=0, description="IGD: half of the score")
    ssim_pool: Pool = Field("mean", description="how a term's map becomes its number; METHODS: mean over positions")
    l1_pool: Pool = Field("mean", description="likewise")
    latent_pool: Pool = Field("mean", description="likewise")
    group: str | None = Field(None, pattern="^(mean|max)$", description="how a patient's pictures become one score")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Ours: minutes on two CPU cores. Chosen on validation normals and planted anomalies.
        "small": {
            "size": 64,
            "widths": (32, 32, 16),
            "heads": 4,
            "key_size": 8,
            "critic_width": 16,
            "latent_relu": False,
            # Zeros make the border of a bright picture look anomalous.
            "padding": "replicate",
            "learning_rate": 1e-3,
            "gaussian_weight": 0.1,
            "ssim_pool": {"topk": 0.1},
            "l1_pool": {"topk": 0.1},
            "latent_pool": {"topk": 0.1},
            "epochs": 60,
            "batch_size": 32,
            "validate_every": 5,
            "patience": 5,
            "halve_after": 2,
        },
    }

    @model_validator(mode="after")
    def _fits(self) -> OcadConfig:
        step = 2 ** len(self.widths)
        if self.size % step:
            raise ConfigError(
                f"config.size: {self.size} is not a multiple of {step}, which {len(self.widths)} poolings need"
            )
        if self.attention_after > len(self.widths):
            raise ConfigError(
                f"config.attention_after: {self.attention_after}, expected at most {len(self.widths)} (stages)"
            )
        if self.halve_after >= self.patience:
            raise ConfigError(
                f"config.halve_after: {self.halve_after}, expected less than patience ({self.patience}), at which "
                "training stops"
            )
        if self.ssim_weight + self.l1_weight + self.latent_weight == 0:
            raise ConfigError("config: ssim_weight, l1_weight and latent_weight are all 0; one must be positive")
        return self
