"""Every number of `singan`, with its source: the paper (Shaham et al. 2019) or its published code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from normscan.config import BaseConfig
from normscan.errors import ConfigError
from normscan.generate.card import GeneratorConfig

Side = Annotated[int, Field(ge=8, le=4096)]


class SinganConfig(GeneratorConfig):
    """The defaults are the preset `paper`."""

    min_size: int = Field(25, ge=8, le=4096, description="paper: shorter side of the coarsest scale, pixels")
    max_size: int = Field(250, ge=8, le=4096, description="paper: longer side of the finest scale, pixels")
    factor: float = Field(0.75, gt=0, lt=1, description="paper: 3/4, or near it, so that both ends are met")
    scales: int | None = Field(None, ge=2, le=32, description="their number, in place of the factor")
    width: int = Field(32, ge=1, le=1024, description="paper: channels of the coarsest scale")
    double_every: int = Field(4, ge=1, description="paper: scales after which the channels double")
    max_width: int = Field(128, ge=1, le=4096, description="code: channels never exceed 128")
    layers: int = Field(5, ge=2, le=16, description="paper: convolutions of a generator and of a critic")
    iterations: int = Field(2000, ge=1, le=1_000_000, description="paper: of each scale")
    critic_steps: int = Field(3, ge=1, le=100, description="paper: 3 an iteration")
    generator_steps: int = Field(3, ge=1, le=100, description="paper: 3 an iteration")
    learning_rate: float = Field(5e-4, gt=0, description="paper: Adam 5e-4")
    momentum: float = Field(0.5, ge=0, lt=1, description="paper: Adam's beta 1; beta 2 is 0.999")
    decay: float = Field(0.1, gt=0, le=1, description="paper: the rate falls to a tenth")
    decay_after: float = Field(0.8, gt=0, le=1, description="paper: after 1600 of 2000 iterations")
    gradient_penalty: float = Field(0.1, ge=0, description="paper: WGAN-GP 0.1")
    reconstruction_weight: float = Field(10.0, ge=0, description="paper: 10")
    noise: float = Field(0.1, ge=0, description="code: 0.1 of the upsampled reconstruction's RMSE")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        # Ours: minutes on two CPU cores.
        "small": {"scales": 5, "max_size": 100, "max_width": 32, "iterations": 200},
    }

    @model_validator(mode="after")
    def _fits(self) -> Self:
        field = 2 * self.layers + 1
        if self.min_size < field:
            raise ConfigError(
                f"config.min_size: {self.min_size}, expected at least {field}, which a critic of {self.layers} layers "
                "sees at once"
            )
        if self.max_size < self.min_size:
            raise ConfigError(f"config.max_size: {self.max_size}, expected at least min_size ({self.min_size})")
        return self

    def width_at(self, scale: int) -> int:
        """Channels of a scale, counted from 0, the coarsest."""
        return max(self.width, min(self.max_width, self.width << scale // self.double_every))


class SinganOptions(BaseConfig):
    """What a sample may be."""

    size: tuple[Side, Side] | None = Field(None, description="height, width; default: the finest scale's own")
    start_scale: int = Field(0, ge=0, description="the first scale that noise changes; coarser ones are kept")
    noise: float = Field(
        1.0, ge=0, le=100, description="times the learnt amplitudes; 0 from scale 1 on: reconstruction"
    )
    input: Path | None = Field(None, description="a picture to begin with at start_scale, as in paint to image")
