"""Every number of `patch_cnn`, with its source: Cano et al. (arXiv 2412.13857) and the theses around it (UAB)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ArgumentError, ConfigError
from normscan.families.config import Config
from normscan.nn.features import BACKBONES, check_layers

# Ours: some three minutes on two CPU cores, and no download: bacteria are small and of few shapes, so that a narrow
# network from random weights learns them (patch AUROC of .99 on a made cohort of another seed than the reported one).
_SMALL: dict[str, Any] = {
    "size": 128,
    "width": 32,
    "weights": "random",
    "batch_size": 16,
    "learning_rate": 1e-3,
    "decay": "cosine",
    "epochs": 15,
    "precision": "auto",
    "elastic": 0.01,
    "stain_jitter": 0.1,
}


class PatchCnnConfig(Config):
    """The defaults are the preset `paper`, with another backbone."""

    resize: str = Field("stretch", pattern="^(stretch|fit|crop)$", description="patches are square")
    backbone: str = Field("resnet18", description=f"one of {', '.join(BACKBONES)}; source: EfficientNetV2-M")
    layer: str = Field("layer4", description="where the backbone ends; of vgg19 relu5_4")
    width: int = Field(64, ge=1, le=256, description="channels of its first convolution; published weights have 64")
    weights: str = Field(
        "torchvision",
        description="of the backbone: a file, torchvision[:NAME], timm[:NAME], or random",
        json_schema_extra={"file": True},
    )
    batch_norm: bool = Field(True, description="false: folded into the convolutions, as published weights may be")
    epochs: int = Field(20, ge=1, le=1_000_000, description="source: 20. The last weights are kept")
    learning_rate: float = Field(1e-4, gt=0, description="source: Adam 1e-4")
    weight_decay: float = Field(0.0, ge=0, description="decoupled (AdamW)")
    decay: Literal["none", "cosine"] = Field("none", description="of the rate over the epochs")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the features before the classifier")
    flip: bool = Field(True, description="source: flips")
    elastic: float = Field(0.02, ge=0, le=0.2, description="source: elastic; share of the side")
    stain_jitter: float = Field(0.05, ge=0, le=1, description="ours, in place of the source's equalisation")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "small": _SMALL}

    @model_validator(mode="after")
    def _fits(self) -> PatchCnnConfig:
        if self.channels != 3:
            raise ConfigError(f"config.channels: {self.channels}, expected 3: the backbone sees colour (grey is fine)")
        if self.width != 64 and self.weights != "random":
            raise ConfigError(f"config.width: {self.width}, expected 64 where weights is {self.weights!r}")
        try:
            check_layers(self.backbone, (self.layer,))
        except ArgumentError as error:
            raise ConfigError(f"config: {error}") from None
        return self
