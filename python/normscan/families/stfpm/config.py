"""Every number of `stfpm`, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.families.config import Config
from normscan.scoring.spec import Pool

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class StfpmConfig(Config):
    """The defaults are the preset `paper`."""

    size: int = Field(256, ge=32, le=2048, description="STFPM: 256; the source: 768")
    resize: str = Field("stretch", pattern="^(stretch|fit|crop)$", description="STFPM stretches")
    backbone: Literal["resnet18", "resnet34", "wide_resnet50_2"] = Field("resnet18", description="STFPM: ResNet18")
    width: int = Field(64, ge=1, le=256, description="channels of the first convolution; published weights have 64")
    weights: str = Field(
        "torchvision",
        description="of the teacher: a file, torchvision[:NAME], timm[:NAME], or random",
        json_schema_extra={"file": True},
    )
    teacher_task: Literal["none", "cutpaste", "rotation", "best", "supervised"] = Field(
        "none", description="what the teacher is fine-tuned on; best: whatever validation prefers of the first three"
    )
    teacher_epochs: int = Field(10, ge=1, le=100_000, description="ours; for best: of each task")
    teacher_learning_rate: float = Field(1e-4, gt=0, description="ours: Adam")
    learning_rate: float = Field(0.4, gt=0, description="STFPM: SGD 0.4")
    momentum: float = Field(0.9, ge=0, lt=1, description="STFPM: 0.9")
    weight_decay: float = Field(1e-4, ge=0, description="STFPM: 1e-4")
    decay: Literal["none", "cosine"] = Field("none", description="of the rate; STFPM: none")
    cache_mb: int = Field(1024, ge=0, description="ours: memory for the teacher's features, where no augmentation")
    fuse: Literal["product", "sum"] = Field("product", description="STFPM, eq. 4: the product over levels")
    pool: Pool = Field(
        "max", description='STFPM: the maximum; the source: {"area": t}, t in the unit of the map (levels over scales)'
    )
    blur_sigma: float = Field(4.0, ge=0, description="METHODS: pixels, before the maximum")
    group: str | None = Field(None, pattern="^(mean|max)$", description="how a patient's pictures become one score")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Ours: about ten minutes on two CPU cores for 300 pictures. Small batches, since the student still underfits
        # when time is up: at 128 pixels and six epochs the separation of planted anomalies was 4, 23, 41 at batch 32,
        # 8, 4 (at batch 8 and rates of 0.1, 0.4, 1.4, 4: 15, 23, 26, 24). CutPaste gave 39 instead of 23 at batch 8,
        # but an AUROC of 0.981 instead of 0.998; rotation gave nothing.
        "small": {"batch_size": 4, "epochs": 30, "decay": "cosine", "validate_every": 5, "patience": 3},
    }

    @model_validator(mode="after")
    def _fits(self) -> StfpmConfig:
        if self.channels != 3:
            raise ConfigError(
                f"config.channels: {self.channels}, expected 3: the teacher has seen colour (grey is fine)"
            )
        if self.width != 64 and self.weights != "random":
            raise ConfigError(f"config.width: {self.width}, expected 64 where weights is {self.weights!r}")
        return self

    @property
    def augments(self) -> bool:
        """Whether a picture looks different from epoch to epoch."""
        return any(bool(value) for value in self.augmentation.values())
