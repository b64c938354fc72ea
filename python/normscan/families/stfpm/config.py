"""Every number of `stfpm`, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.families.config import Config
from normscan.scoring.spec import Pool


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
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "auto", description="of a training step; after as many steps bfloat16 had the loss of float32"
    )
    cache_mb: int = Field(1024, ge=0, description="ours: memory for the teacher's features, where no augmentation")
    fuse: Literal["product", "sum"] = Field("product", description="STFPM, eq. 4: the product over levels")
    pool: Pool = Field(
        "max", description='STFPM: the maximum; the source: {"area": t}, t in the unit of the map (levels over scales)'
    )
    blur_sigma: float = Field(4.0, ge=0, description="METHODS: pixels, before the maximum")
    group: str | None = Field(None, pattern="^(mean|max)$", description="how a patient's pictures become one score")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Ours: four minutes on two CPU cores for 300 pictures. The student underfits when time is up, so the preset is
        # whatever learns fastest: many small steps, and a decay of the weights that keeps the steps of a network with
        # batch norm large. After 1,120 pictures of 256 pixels the loss on validation normals was .252, .217, .158,
        # .137, .157 for a decay of 1e-4, 1e-3, 3e-3, 1e-2, 2e-2 at batch 4; .271 and .096 for 3e-3 at batches of 8
        # and 2; .268 and .222 for AdamW at 1e-3 and 3e-3. The separation of planted anomalies followed: 8.5 to 23.9.
        # CutPaste for the teacher raised it, but lowered their AUROC from 0.998 to 0.981; rotation gave nothing.
        "small": {
            "batch_size": 2,
            "weight_decay": 3e-3,
            "epochs": 20,
            "decay": "cosine",
            "validate_every": 5,
            "patience": 3,
        },
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
