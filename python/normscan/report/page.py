"""One HTML page a test set: verdict, plots, numbers, pictures, provenance. No network, no script, no second file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.files import write_bytes
from normscan.report import pictures, plots, words
from normscan.report.html import document, figures, origin, section, table
from normscan.report.words import NONE, Metrics
from normscan.scoring import metrics as measure

GALLERY = 48  # images shown on a page
_ROOM_FOR_WRONG = 24  # of them wrong decisions, as long as there are others to show
_WRONG = ("missed", "false alarm")


@dataclass(frozen=True, slots=True)
class Row:
    """One scored image. What is unknown is None."""

    path_label: str  # shown as it is: the caller keeps patient names out of it
    label: int | None  # 0 normal, 1 abnormal
    score: float  # NaN: could not be scored
    decision: bool | None  # True: anomalous
    image: npt.NDArray[np.uint8] | None = None  # [H,W,3] RGB
    map: npt.NDArray[np.floating] | None = None  # [H,W]
    mask: npt.NDArray[np.bool_] | None = None  # [H,W]
    restored: npt.NDArray[np.uint8] | None = None  # [h,w,3] RGB, at the network's size


def write_page(
    folder: Path | str,
    *,
    title: str,
    metrics: Metrics,
    calibration: Mapping[str, Any] | None,
    rows: Sequence[Row],
    provenance: Mapping[str, Any],
    map_scale: tuple[float, float] | None = None,
) -> Path:
    """Write `folder`/index.html, whole or not at all, and return its path.

    metrics: of `scoring.metrics.summary`, with "baselines" {name: AUROC or a summary} if there are any; calibration:
    the spec's, or None; rows: every test image, of which those that `pictured` names need pixels; provenance: any
    nesting of names and values; map_scale: (low, high) of the colours, else from the maps on the page.
    """
    sections = [
        _verdict(metrics, calibration, rows),
        _separation(metrics, rows),
        _measures(metrics, calibration),
        _baselines(metrics),
        _gallery(rows, map_scale),
        origin(provenance),
    ]
    page = document(title, "normscan report", filter(None, sections))
    target = Path(folder) / "index.html"
    write_bytes(target, page.encode())
    return target


def pictured(rows: Sequence[Row]) -> list[int]:
    """Indices of the rows that the gallery shows: the most wrong decisions first, then the highest scores.

    Wrong by rank within its kind (the lowest missed, the highest false alarm, the second lowest missed, ...): distances
    to the threshold would let false alarms crowd out what was missed, as scores have a long tail above only.
    """
    scored = [i for i, row in enumerate(rows) if math.isfinite(row.score)]
    missed = sorted((i for i in scored if _outcome(rows[i]) == "missed"), key=lambda i: rows[i].score)
    alarms = sorted((i for i in scored if _outcome(rows[i]) == "false alarm"), key=lambda i: -rows[i].score)
    wrong = [i for _, i in sorted([*enumerate(missed), *enumerate(alarms)], key=lambda ranked: ranked[0])]
    others = sorted(set(scored).difference(wrong), key=lambda i: (-rows[i].score, i))
    first = wrong[: max(_ROOM_FOR_WRONG, GALLERY - len(others))]
    return first + others[: GALLERY - len(first)]


# ---- sections -----------------------------------------------------------------------------------------------------


def _verdict(metrics: Metrics, calibration: Metrics | None, rows: Sequence[Row]) -> str:
    counts = metrics.get("counts") or {}
    found = words.share(counts.get("true_positive"), counts.get("abnormal"), "abnormal images found")
    passed = words.share(counts.get("true_negative"), counts.get("normal"), "normal images passed")
    interval = words.known("95 % interval {}", words.numbers(metrics.get("image_auroc_ci")))
    promised = words.known("promised: {}", words.percents(metrics.get("specificity_prediction_interval")))
    shown = [
        ("AUROC", words.number(metrics.get("image_auroc")), interval or "not defined"),
        ("Sensitivity", words.percent(metrics.get("sensitivity")), found or "not defined"),
        ("Specificity", words.percent(metrics.get("specificity")), promised or passed or "not defined"),
    ]
    unscored = [row.path_label for row in rows if not math.isfinite(row.score)]
    said = words.sentences(metrics, calibration, len(rows), unscored)
    return section("Verdict", figures(shown) + "".join(f"<p>{escape(s)}</p>" for s in said))


def _separation(metrics: Metrics, rows: Sequence[Row]) -> str:
    of = {kind: [r.score for r in rows if r.label == kind and math.isfinite(r.score)] for kind in (0, 1, None)}
    if not any(of.values()):
        return ""
    threshold = metrics.get("threshold")
    charts = []
    if of[0] and of[1]:
        labels, scores = [0] * len(of[0]) + [1] * len(of[1]), of[0] + of[1]
        false, true, _ = measure.roc_curve(labels, scores)
        point = None
        if threshold is not None:
            sensitivity, specificity = measure.sensitivity_specificity(labels, scores, threshold)
            point = (1 - specificity, sensitivity)
        curve = plots.roc(false, true, area=measure.auroc(labels, scores), point=point)
        charts.append((curve, "What every threshold would find, and its price in false alarms."))
    bars = plots.histogram(of[0], of[1], of[None], threshold=threshold)
    charts.append((bars, "Scores of each kind. Those beyond the axis are counted in the outermost bars."))
    figures = "".join(f"<figure>{svg}<figcaption>{text}</figcaption></figure>" for svg, text in charts)
    return section("Separation", f'<div class="plots">{figures}</div>')


def _measures(metrics: Metrics, calibration: Metrics | None) -> str:
    get, counts, spec = metrics.get, metrics.get("counts") or {}, calibration or {}
    how = {"delong": "DeLong", "grouped_bootstrap": "bootstrap over groups"}.get(get("image_auroc_ci_method") or "", "")
    found = words.share(counts.get("true_positive"), counts.get("abnormal"), "abnormal images found")
    passed = words.share(counts.get("true_negative"), counts.get("normal"), "normal images passed")
    evidence = words.known("of the threshold, given {} calibration images", spec.get("n"))
    number, percent, percents = words.number, words.percent, words.percents
    lines = [
        ("AUROC, images", number(get("image_auroc")), words.numbers(get("image_auroc_ci")), how),
        ("AUPRC, images", number(get("auprc")), "", words.known("chance is {}", number(get("prevalence")))),
        ("Sensitivity", percent(get("sensitivity")), percents(get("sensitivity_ci")), found),
        ("Specificity", percent(get("specificity")), percents(get("specificity_ci")), passed),
        (
            "Specificity, promised",
            percent(get("target_specificity")),
            percents(get("specificity_prediction_interval")),
            "for a test set of this size",
        ),
        ("Specificity, true", "", percents(spec.get("interval")), evidence),
        ("Threshold", words.score(get("threshold")), "", "anomalous above it"),
        ("AUROC, pixels", number(get("pixel_auroc")), "", ""),
        ("AUPRO, regions", number(get("aupro")), "", "up to 30 % false positive pixels"),
    ]
    body = [[escape(cell) for cell in line] for line in lines if line[1] not in ("", NONE) or line[2]]
    if not body:
        return ""
    return section("Numbers", table("Measured on the test set", ("Measure", "Value", "95 % interval", "Note"), body))


def _baselines(metrics: Metrics) -> str:
    areas = words.baseline_areas(metrics)
    if not areas or metrics.get("image_auroc") is None:
        return ""
    lines = [("This model", metrics["image_auroc"], metrics.get("image_auroc_ci"))]
    for name, area in sorted(areas, key=lambda item: -item[1]):
        given = metrics["baselines"][name]
        lines.append((name, area, given.get("image_auroc_ci") if isinstance(given, Mapping) else None))
    body = [
        [escape(name), words.number(area), words.numbers(bounds), plots.whisker(area, bounds)]
        for name, area, bounds in lines
    ]
    caption = "The same images, scored without a trained network. The dashed line is chance."
    return section("Baselines", table(caption, ("Method", "AUROC", "95 % interval", "From 0 to 1"), body))


def _gallery(rows: Sequence[Row], map_scale: tuple[float, float] | None) -> str:
    drawable = [row for row in rows if row.image is not None or row.map is not None]
    shown = [drawable[i] for i in pictured(drawable)]
    if not shown:
        return ""
    maps = [row.map for row in shown if row.map is not None]
    low, high = map_scale or pictures.scale_of(maps)
    wrong, drawn = (sum(_outcome(row) in _WRONG for row in given) for given in (rows, shown))
    intro = f"Wrong decisions first, {drawn} of {wrong}, then the highest scores." if wrong else "Highest scores first."
    if any(row.mask is not None for row in shown):
        intro += " What is known to be abnormal is outlined."
    bar = (
        f'<p class="scale">{low:.3g}<span class="bar" style="background:{pictures.gradient()}"></span>'
        f"{high:.3g}<span>one scale for all maps</span></p>"
        if maps
        else ""
    )
    cards = "".join(_card(row, low, high) for row in shown)
    return section("Pictures", f'<p>{intro}</p>{bar}<ul class="gallery">{cards}</ul>')


def _card(row: Row, low: float, high: float) -> str:
    kind = {0: "normal", 1: "abnormal"}.get(-1 if row.label is None else row.label, "label unknown")
    outcome = _outcome(row) or ("" if row.decision is None else "flagged" if row.decision else "passed")
    images: list[tuple[str, pictures.Picture]] = []
    if row.image is not None:
        images.append(("image", row.image))
    if row.restored is not None:
        images.append(("restored", row.restored))
    if row.map is not None:
        images.append(("map", pictures.heat(row.map, low, high)))
    if row.image is not None and row.map is not None:
        images.append(("overlay", pictures.overlay(row.image, row.map, low, high, row.mask)))
    name = escape(row.path_label)
    panes = "".join(
        f'<img loading="lazy" src="{pictures.data_uri(picture)}" alt="{name}: {part}, {kind}">'
        for part, picture in images
    )
    grid = "panes four" if len(images) == 4 else "panes"
    return (
        f'<li class="{"wrong" if outcome in _WRONG else "right"}"><figure><div class="{grid}">{panes}</div><figcaption>'
        f'<span class="outcome">{", ".join(filter(None, (kind, outcome)))}</span>'
        f'<span class="score">{words.score(row.score)}</span><span class="path">{name}</span>'
        "</figcaption></figure></li>"
    )


# ---- parts --------------------------------------------------------------------------------------------------------


def _outcome(row: Row) -> str:
    """What became of an image; empty where its label or decision is unknown."""
    if row.label is None or row.decision is None:
        return ""
    return {(1, True): "found", (1, False): "missed", (0, True): "false alarm", (0, False): "passed"}[
        int(row.label), bool(row.decision)
    ]
