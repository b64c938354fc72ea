"""The scoring spec: data that says how pixels are prepared, what is compared how, and how maps become a score.

The native core holds the one validator and the one executor; this module holds the same fields as frozen Python values,
for families to declare and for calibration to fill in.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal, Self

from normscan import _native
from normscan.errors import ImageError
from normscan.scoring.calibrate import Calibration

Pool = str | dict[str, float]
"""How a map becomes a number: "mean", "max", {"topk": share}, {"quantile": q} or {"area": threshold}."""

Density = Literal["negative", "positive", "low", "high"]
"""What a group's score says: "positive" where the spec has no second threshold, else "low" or "high"."""


@dataclass(frozen=True)
class Input:
    """How pixels become the network's input x [channels, height, width] float32."""

    height: int
    width: int
    channels: int = 3
    resize: str = "fit"
    """"stretch", "fit" (letter-box) or "crop"."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def largest(self) -> float:
        """The largest magnitude of x: of black or of white."""
        return max(abs((end - m) / s) for m, s in zip(self.mean, self.std, strict=True) for end in (0.0, 1.0))


@dataclass(frozen=True)
class Term:
    """One comparison over named network outputs; `distance` takes two, `gaussian` one and its statistics.

    `stain` compares the red of two RGB pictures in 0..1, as of an immunostain: metric "residual" or "red_ratio".
    `value` takes an output that is a score already: [N,1] (per "vector") or a map [N,1,H,W] (per "position").
    `gaussian_mixture` is the negative log-likelihood of a mixture. Its statistics (K components in the tensors
    "<stats>.mean", "<stats>.whitener" and "<stats>.log_weights") are the caller's: training fits single Gaussians only.
    """

    op: str
    of: tuple[str, ...]
    metric: str | None = None
    window: int | None = None
    """Of SSIM, 11 by default; of a `stain` by "red_ratio", which counts in the whole picture by default."""
    stats: str | None = None
    form: str | None = None
    per: str | None = None
    cut: float | None = None
    """Of a `stain` by "residual": R - (G + B) / 2 below it counts as 0 (the default)."""
    hue: tuple[float, float] | None = None
    """Of a `stain` by "red_ratio": from and to in degrees, round the circle; (350, 16) by default."""
    least_saturation: float | None = None
    """Of a `stain` by "red_ratio": what is paler is not red; 0 by default."""
    output: str | None = None
    """What a `gaussian` gives: "squared_distance" (the default), "saturated" or "nll"; see `normscan.ops.gaussian`."""
    saturation: float | None = None
    """Of a "saturated" `gaussian`: the squared distance that gives 1 - 1/e."""
    pool: Pool = "mean"
    scale: float | None = None
    """The term's spread on validation normals; filled in after training."""
    weight: float = 1.0

    @property
    def kind(self) -> str | None:
        """For people: the metric of a distance, the form of a Gaussian and its output where that is no distance."""
        if self.output in (None, "squared_distance"):
            return self.metric or self.form
        return f"{self.form}, {self.output}"


@dataclass(frozen=True)
class Map:
    """The fused anomaly map: "input" size or (height, width), smoothed by a Gaussian of `blur_sigma` pixels."""

    size: str | tuple[int, int] = "input"
    blur_sigma: float = 0.0


@dataclass(frozen=True)
class Group:
    """How the scores of a group (patient, lesion, slide) become one, and what that one says."""

    pool: Pool
    """"mean", "max", "noisy_or" (of probabilities), {"topk": share} or {"fraction": threshold} (of scores above it)."""
    positive: float | None = None
    """A group is positive where its score > this."""
    high: float | None = None
    """A positive group is of high density where its score > this, else of low density."""

    @property
    def rule(self) -> tuple[str, float]:
        """The pool as method and parameter of the native `aggregate`."""
        if isinstance(self.pool, str):
            return self.pool, 0.0
        ((method, parameter),) = self.pool.items()
        return method, parameter

    def density(self, score: float) -> Density | None:
        """What the score of a group says; None without `positive`. A NaN is an error, never a diagnosis."""
        if not isfinite(score):
            raise ImageError(f"the score of the group is {score}, expected a finite number: one of its images has none")
        if self.positive is None:
            return None
        if score <= self.positive:
            return "negative"
        if self.high is None:
            return "positive"
        return "high" if score > self.high else "low"


@dataclass(frozen=True)
class ScoringSpec:
    """The whole of it; see DESIGN for the formula of each field. Invalid values are a `ConfigError` naming the path."""

    family: str
    input: Input
    terms: tuple[Term, ...]
    fuse: str = "sum"
    pool_at: str = "term"
    pool: Pool | None = None
    map: Map = Map()
    group: Group | None = None
    calibration: Calibration | None = None
    schema: int = 1

    def __post_init__(self) -> None:
        self.native()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse and validate; missing optional fields take their defaults."""
        value: dict[str, Any] = json.loads(_native.ScoringSpec(text).json())
        pairs = ("of", "hue")
        terms = tuple(
            Term(**{**term, **{key: tuple(term[key]) for key in pairs if key in term}}) for term in value["terms"]
        )
        size, calibration = value["map"]["size"], value["calibration"]
        pixels = value["input"]
        return cls(
            **{
                **value,
                "input": Input(**{**pixels, "mean": tuple(pixels["mean"]), "std": tuple(pixels["std"])}),
                "terms": terms,
                "map": Map(size if isinstance(size, str) else tuple(size), value["map"]["blur_sigma"]),
                "group": value["group"] and Group(**value["group"]),
                "calibration": calibration
                and Calibration(**{**calibration, "interval": tuple(calibration["interval"])}),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON file."""
        value: dict[str, Any] = json.loads(self.native().json())
        return value

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of the fused map."""
        return (self.input.height, self.input.width) if isinstance(self.map.size, str) else self.map.size

    def native(self) -> _native.ScoringSpec:
        """The native twin, validated."""
        value = asdict(self)
        value["terms"] = [{k: v for k, v in term.items() if v is not None} for term in value["terms"]]
        return _native.ScoringSpec(json.dumps(value))

    def with_scales(self, scales: list[float]) -> Self:
        """The same spec with the spread of each term filled in."""
        terms = tuple(replace(term, scale=scale) for term, scale in zip(self.terms, scales, strict=True))
        return replace(self, terms=terms)

    def with_calibration(self, calibration: Calibration | None) -> Self:
        """The same spec with its threshold."""
        return replace(self, calibration=calibration)
