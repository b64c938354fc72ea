"""The report's words: numbers as text, and what they say in plain sentences. Nothing here is HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

Metrics = Mapping[str, Any]  # of `scoring.metrics.summary`, with "baselines" where there are any

_TO = "\N{EN DASH}"
NONE = _TO  # a number that is not defined
NOTICE = "Research use only. Not a medical device."

_NAMED = 10  # images that could not be scored are named up to this many


def sentences(metrics: Metrics, calibration: Metrics | None, n: int, unscored: Sequence[str]) -> Iterator[str]:
    """What the numbers say. n: all images; unscored: the names of those without a score."""
    if metrics.get("image_auroc") is None:
        yield f"{n} images were given. Without labels of both kinds there is nothing to compare the scores with."
    else:
        yield from _ranking(metrics)
    yield from _decisions(metrics, calibration)
    if unscored:
        names = ", ".join([*unscored[:_NAMED], *["..."] * (len(unscored) > _NAMED)])
        yield f"{len(unscored)} of {n} images could not be scored and are in no number here: {names}"


def _ranking(metrics: Metrics) -> Iterator[str]:
    area, bounds = metrics["image_auroc"], metrics.get("image_auroc_ci")
    yield (
        f"Of one abnormal and one normal image, the abnormal one scores higher {percent(area)} of the time; "
        "guessing would give 50 %."
    )
    if bounds is not None and bounds[0] == bounds[1]:
        yield "The two kinds do not overlap at all here, so these images cannot say how certain that is."
    elif bounds is not None and bounds[1] < 0.5:
        yield "That is worse than guessing: abnormal images look more normal to this model than normal ones do."
    elif bounds is not None and bounds[0] <= 0.5:
        yield "The interval contains 0.5: this test set does not show that the model does better than guessing."
    best = max(baseline_areas(metrics), key=lambda item: item[1], default=None)
    if best is not None and best[1] >= area:
        yield f"The model does not beat {best[0]}, which learns no network: AUROC {area:.3f} against {best[1]:.3f}."
    elif best is not None:
        yield f"The strongest method that learns no network, {best[0]}, reaches an AUROC of {best[1]:.3f}."


def _decisions(metrics: Metrics, calibration: Metrics | None) -> Iterator[str]:
    counts = metrics.get("counts") or {}
    if metrics.get("threshold") is None and calibration is None:
        yield "No threshold was calibrated, so no image is called normal or abnormal: the scores can only be ranked."
    if metrics.get("sensitivity") is not None:
        yield (
            f"At the threshold, {counts['true_positive']} of {counts['abnormal']} abnormal images are found "
            f"and {counts['false_negative']} missed."
        )
    specificity, promised = metrics.get("specificity"), metrics.get("specificity_prediction_interval")
    if specificity is None:
        return
    passed, alarms, normal = counts["true_negative"], counts["false_positive"], counts["normal"]
    start = f"{passed} of {normal} normal images pass, {alarms} are false alarms"
    if promised is None:
        yield f"{start}."
        return
    target = (
        f"The threshold promises {100 * metrics['target_specificity']:g} %, for this many images {percents(promised)}"
    )
    if metrics.get("specificity_as_promised"):
        yield f"{start}. {target}: the promise holds."
    elif specificity < promised[0]:
        yield f"{start}. {target}: the promise is broken, for these images are not like those of the calibration."
    else:
        yield f"{start}. {target}: more pass than promised, for these images are easier than those of the calibration."


def baseline_areas(metrics: Metrics) -> list[tuple[str, float]]:
    """(name, AUROC) of metrics["baselines"], whose values are AUROCs or summaries."""
    given = metrics.get("baselines") or {}
    areas = [(name, value.get("image_auroc") if isinstance(value, Mapping) else value) for name, value in given.items()]
    return [(name, float(area)) for name, area in areas if area is not None]


def known(text: str, value: object) -> str:
    """The text around a value, or nothing where there is none."""
    return "" if value in (None, "", NONE) else text.format(value)


def defined(value: Any) -> Any:
    """The same nesting of values, with None for each number that is not finite, of which a page says nothing.

    An interval (a key that ends in "_ci") with such an end is None as a whole.
    """
    if isinstance(value, Mapping):
        inside = {key: defined(inner) for key, inner in value.items()}
        broken = {key for key, inner in inside.items() if str(key).endswith("_ci") and None in (inner or ())}
        return {key: None if key in broken else inner for key, inner in inside.items()}
    if isinstance(value, list | tuple):
        return [defined(inner) for inner in value]
    return None if isinstance(value, Real) and not math.isfinite(value) else value


def number(value: float | None) -> str:
    """0.873"""
    return NONE if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """95.3 %"""
    return NONE if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def score(value: float | None) -> str:
    """Four digits, in whatever unit scores have."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.4g}"


def numbers(bounds: Sequence[float] | None) -> str:
    """0.842-0.904, with an en dash."""
    return "" if bounds is None else f"{bounds[0]:.3f}{_TO}{bounds[1]:.3f}"


def percents(bounds: Sequence[float] | None) -> str:
    """90.7-98.7 %, with an en dash."""
    return "" if bounds is None else f"{100 * bounds[0]:.1f}{_TO}{100 * bounds[1]:.1f}\N{NO-BREAK SPACE}%"


def share(part: int | None, whole: int | None, what: str) -> str:
    """71 of 200 found"""
    return "" if part is None or not whole else f"{part} of {whole} {what}"
