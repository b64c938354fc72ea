"""Every number of `stain_ae`, with its source: Cano et al. (arXiv 2309.16053) and the theses around it (UAB)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.families.config import Config
from normscan.scoring.spec import Pool

Width = Annotated[int, Field(ge=1, le=4096)]

# Ours: some seven minutes on one CPU core. Rods are a few pixels each, and drown in a patch's mean: on made cohorts of
# other seeds than the reported one the highest hundredth of a blurred map told patches with an AUROC of .99, patients
# with .98 and .99 (blurs of 0 to 3 pixels and shares from .003 to .03: .90 to .99); of an earlier network the mean told
# patches with .88, that hundredth with .97. The better pictures are given back, the better rods are seen: 10 epochs
# .92, 20 epochs .97. Thresholds come from `normscan diagnose`, so that few patients go to calibration.
_SMALL: dict[str, Any] = {
    "size": 128,
    "architecture": "unet",
    "widths": (16, 32, 64),
    "batch_size": 16,
    "learning_rate": 1e-3,
    "decay": "cosine",
    "epochs": 30,
    "precision": "auto",
    "calibration": 0.05,
    "stain_jitter": 0.05,
    "score": "residual",
    "cut": 0.0,
    "blur_sigma": 3.0,
    "pool": {"topk": 0.01},
}


class StainAeConfig(Config):
    """The defaults are the preset `paper`, but for `cut`."""

    resize: str = Field("stretch", pattern="^(stretch|fit|crop)$", description="patches are square")
    architecture: Literal["unet", "unet_skips", "conv"] = Field(
        "unet", description="U-Net without skips (the one used), with them, or strided convolutions alone"
    )
    widths: tuple[Width, ...] = Field((64, 128, 256), min_length=1, description="source: channels, fine to coarse")
    loss: Literal["mse", "l1"] = Field("mse", description="source: mse")
    epochs: int = Field(15, ge=1, le=1_000_000, description="source: 15; its sibling: 25. The last weights are kept")
    batch_size: int = Field(30, ge=1, le=4096, description="source: 30")
    learning_rate: float = Field(1e-5, gt=0, description="source: Adam 1e-5; its sibling: 1e-3")
    decay: Literal["none", "cosine"] = Field("none", description="of the rate over the epochs")
    flip: bool = Field(True, description="source: flips")
    score: Literal["residual", "red_ratio", "l2"] = Field(
        "residual", description="the red that is lost, squared; red pixels in / out; or the distance in all colours"
    )
    cut: float = Field(0.0, ge=-1, le=1, description="residual: R - (G + B) / 2 below it counts as 0")
    hue: tuple[float, float] = Field((350.0, 16.0), description="red_ratio: degrees, through 0")
    least_saturation: float = Field(0.0, ge=0, le=1, description="red_ratio: of a pixel that has a hue")
    window: int | None = Field(None, ge=3, le=1001, description="red_ratio: side in pixels; null: the whole patch")
    blur_sigma: float = Field(0.0, ge=0, le=100, description="ours: pixels of the map, before it is pooled")
    pool: Pool = Field("mean", description="source: the mean over a patch")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The source's cut is 156 of 255, tuned to its stain and its overflow: pure DAB brown has 95 of 255.
        "paper": {"cut": 156 / 255},
        "sibling": {"cut": 156 / 255, "learning_rate": 1e-3, "epochs": 25},
        "small": _SMALL,
    }

    @property
    def shrink(self) -> int:
        """The side over the coarsest features' side."""
        halvings = len(self.widths) if self.architecture == "conv" else len(self.widths) - 1
        return 1 << halvings

    @model_validator(mode="after")
    def _fits(self) -> StainAeConfig:
        if self.channels != 3:
            raise ConfigError(f"config.channels: {self.channels}, expected 3: staining is colour")
        if self.size % self.shrink:
            raise ConfigError(
                f"config.size: {self.size}, expected a multiple of {self.shrink}: {self.architecture} with "
                f"{len(self.widths)} widths divides the side by it"
            )
        if self.window is not None and self.window % 2 == 0:
            raise ConfigError(f"config.window: {self.window}, expected an odd number of pixels")
        return self
