"""Every number of `sagan`, with its source: Zhang et al., MICCAI 2024 (arXiv 2405.12872)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from normscan.errors import ConfigError
from normscan.families.config import Config

Rows = Annotated[int, Field(ge=1, le=64)]

_LEAST_WINDOW = 16
"""Pixels a side: halved three times, 2 x 2 positions are left, and one alone has no variance to normalise by."""

# Ours: about 15 minutes on two CPU cores, in which the width of 64 would come through some hundred iterations.
# The gradient of a mean over pixels has a norm of 1 / sqrt(pixels), that of a critic one of about 1: with weights of 1,
# what comes back is not the given picture. On `skin_ham10000`, in iterations 41 to 80, |x - G(x)| was .13 at batch 16,
# and planted anomalies were below normals (AUROC .42); with weights of 100 it was .04 at batch 8, and they had .60.
# Attention: on the same set, seed 0, the gates restore validation pictures better (an error of .0211; fused .0262) and
# cost less (a step of the fused form takes 1.2 times as long), so they stay; test AUROC .893 and .902, the difference
# +.009 with an interval of -.009 to +.027.
_SMALL: dict[str, Any] = {
    "channels": 3,
    "width": 16,
    "critic_width": 16,
    "learning_rate": 2e-4,
    "identity": 100.0,
    "restoration": 100.0,
    "batch_size": 8,
    "iterations": 1200,
    "epochs": 20,
    "precision": "auto",
    "flip": True,
}


class SaganConfig(Config):
    """The defaults are the preset `paper`."""

    size: int = Field(64, ge=16, le=4096, description="source: 64")
    channels: Literal[1, 3] = Field(1, description="source: grey; 3: colour")
    resize: str = Field("stretch", pattern="^(stretch|fit|crop)$", description="source: squares")
    grid: tuple[Rows, Rows] = Field((2, 2), description="source: 2 x 2 windows of 32; larger pictures have more")
    width: int = Field(64, ge=1, le=1024, description="source: channels of the first convolution, then x2, x4, x8")
    blocks: int = Field(6, ge=0, le=100, description="source: residual blocks at the coarsest features")
    attention: Literal["additive", "fused"] = Field(
        "additive", description="source: gates on the skips; fused: spatial attention at half a window's side instead"
    )
    heads: int = Field(4, ge=1, le=64, description="ours, of the fused attention")
    position: Literal["planes", "none"] = Field("planes", description="source: each window's number as binary planes")
    mode: Literal["semi_supervised", "one_class"] = Field(
        "semi_supervised", description="one_class: damaged normals stand for unlabelled pictures"
    )
    critic_width: int = Field(64, ge=1, le=1024, description="source: 64, then twice the last, to 2048")
    iterations: int = Field(100_000, ge=1, le=10_000_000, description="source: 100,000; of the generator")
    epochs: int = Field(100, ge=1, le=1_000_000, description="ours: parts that the iterations come in")
    patience: int = Field(100, ge=1, description="ours: to the end, where the rate has fallen to 0")
    critic_steps: int = Field(2, ge=1, le=100, description="source: 2 an iteration, each with its own pictures")
    learning_rate: float = Field(5e-5, gt=0, description="source: Adam (0.5, 0.999), generator and critic")
    decay: Literal["none", "linear_half", "cosine"] = Field(
        "linear_half", description="source: the rate falls to 0 over the second half"
    )
    gradient_penalty: float = Field(10.0, gt=0, description="source: 10")
    identity: float = Field(1.0, ge=0, description="source: 1; weight of |x - G(x)|, a mean over pixels, on normals")
    restoration: float = Field(1.0, ge=0, description="source: 1; weight of (x - G(damaged x))^2, a mean over pixels")
    keep: float = Field(0.05, ge=0, lt=1, description="source: share of pixels that keep the input, in training")
    compile: bool = Field(False, description="the generator by torch.compile, which takes a C++ compiler")
    blur_sigma: float = Field(0.0, ge=0, le=100, description="pixels of the map; source: none")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "128": {"size": 128, "grid": (4, 4)},
        "256": {"size": 256, "grid": (8, 8)},
        "small": _SMALL,
        "small_one_class": {**_SMALL, "mode": "one_class"},
    }

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of a window, pixels."""
        return self.size // self.grid[0], self.size // self.grid[1]

    def lacking(self, counts: Mapping[str, int]) -> str:
        """Semi-supervised training takes unlabelled pictures."""
        if self.mode == "one_class" or counts.get("unlabelled"):
            return ""
        return (
            "found no unlabelled pictures, expected some in train/unlabelled/ (normal and abnormal mixed, nobody need "
            "know which) or listed in unlabelled.txt; without them, take the preset small_one_class, or "
            "--set mode=one_class"
        )

    @model_validator(mode="after")
    def _fits(self) -> SaganConfig:
        rows, cols = self.grid
        if self.size % rows or self.size % cols:
            raise ConfigError(
                f"config.size: {self.size}, expected a multiple of both numbers of config.grid, {rows} x {cols} windows"
            )
        if any(side % 8 or side < _LEAST_WINDOW for side in self.window):
            raise ConfigError(
                f"config.grid: {rows} x {cols} cuts {self.size} pixels into windows of {self.window[0]} x "
                f"{self.window[1]}; expected sides of at least {_LEAST_WINDOW}, multiples of 8, as they are halved "
                "three times"
            )
        if self.attention == "fused" and 2 * self.width % self.heads:
            raise ConfigError(
                f"config.heads: {self.heads}, expected a divisor of {2 * self.width}, twice config.width: the channels "
                "that attention sees"
            )
        return self
