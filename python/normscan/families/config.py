"""What every family's configuration holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from normscan.config import BaseConfig
from normscan.errors import ConfigError


class Config(BaseConfig):
    """What every family's training needs; a family adds its own fields and presets."""

    size: int = Field(256, ge=8, le=4096, description="side of the network's input, pixels")
    channels: Literal[1, 3] = Field(3, description="1 grey, 3 colour")
    resize: str = Field("fit", pattern="^(stretch|fit|crop)$", description="how a picture becomes a square")
    epochs: int = Field(100, ge=1, le=1_000_000)
    batch_size: int = Field(32, ge=1, le=4096)
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    patience: int = Field(10, ge=1, description="validations without gain before training stops")
    seed: int = Field(0, ge=0, le=2**63 - 1)
    precision: Literal["float32", "bfloat16", "auto"] = Field("float32", description="of a training step")
    validation: float = Field(0.1, gt=0, lt=1, description="share of training normals kept for validation")
    calibration: float = Field(0.2, gt=0, lt=1, description="share of training normals kept for the threshold")
    target_specificity: float = Field(0.95, gt=0, le=0.9999, description="of the threshold, on normals")
    plant: Literal["mixed", "fpi", "cutpaste", "poisson", "perlin"] = Field(
        "mixed", description="who makes the anomalies planted for validation: data.pseudo.MAKERS"
    )
    rotate: float = Field(0.0, ge=0, le=180, description="augmentation: degrees")
    shift: float = Field(0.0, ge=0, le=0.5, description="augmentation: share of the side")
    shear: float = Field(0.0, ge=0, le=0.5, description="augmentation")
    zoom: float = Field(0.0, ge=0, lt=1, description="augmentation: share of the size")
    flip: bool = Field(False, description="augmentation: mirror, left-right and top-bottom")
    elastic: float = Field(0.0, ge=0, le=0.2, description="augmentation: smooth displacements, share of the side")
    stain_jitter: float = Field(0.0, ge=0, le=1, description="augmentation: stains' amounts and hues, in RGB density")
    test: float = Field(0.5, gt=0, lt=1, description="share of a cohort's patients that are kept for test")

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.calibration >= 1:
            raise ConfigError(
                f"config: validation {self.validation} + calibration {self.calibration} leave nothing to train on; "
                "their sum must stay below 1"
            )
        return self

    @property
    def augmentation(self) -> dict[str, Any]:
        """Arguments of `data.augment.augment`."""
        return self.model_dump(include={"rotate", "shift", "shear", "zoom", "flip", "elastic", "stain_jitter"})

    @property
    def smallest(self) -> int:
        """Pixels a side that a training picture has at least; smaller ones are refused."""
        return 8

    def lacking(self, counts: Mapping[str, int]) -> str:
        """What training cannot do without, in words, given the number of pictures of each split; empty: nothing."""
        del counts
        return ""

    def portable(self) -> dict[str, Any]:
        """Plain values for a bundle that travels: of a field that is marked as a file, the name alone."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("file"):
                values[name] = PurePath(values[name]).name
        return values
