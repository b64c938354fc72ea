"""The page that shows two runs beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.report import pictures, plots, words
from normscan.report.html import document, section, table
from normscan.report.words import Metrics
from normscan.scoring.paired import Paired

SHOWN = 24
"""Pictures in the gallery."""


@dataclass(frozen=True)
class Pane:
    """What one run says of a picture."""

    map: npt.NDArray[np.floating[Any]]
    score: float
    decision: bool | None
    rank: float
    """Share of the test pictures with a lower score."""


@dataclass(frozen=True)
class Pair:
    """A test picture, and what both runs say of it."""

    name: str
    label: int
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    panes: tuple[Pane, Pane]


def compare_page(
    *,
    title: str,
    names: tuple[str, str],
    metrics: tuple[Metrics, Metrics],
    paired: Paired,
    precision: Paired,
    curves: tuple[plots.Curve, plots.Curve],
    pairs: Sequence[Pair],
    scales: tuple[tuple[float, float], tuple[float, float]],
) -> str:
    """The whole page as HTML.

    paired, precision  the differences of AUROC and AUPRC
    scales             (low, high) of each run's map colours, which are not of one unit
    """
    parts = [
        section("Verdict", "".join(f"<p>{escape(s)}</p>" for s in sentences(names, metrics, paired))),
        section("Separation", f'<div class="plots"><figure>{plots.two_rocs(*curves)}</figure></div>'),
        section("Numbers", _numbers(names, metrics, {"image_auroc": paired, "auprc": precision})),
        section("Pictures", _gallery(names, pairs, scales)),
    ]
    return document(title, "normscan comparison", parts, _STYLE)


def sentences(names: tuple[str, str], metrics: tuple[Metrics, Metrics], paired: Paired) -> list[str]:
    """What the comparison says, in words."""
    areas = [m["image_auroc"] for m in metrics]
    found = [f"{names[0]} ranks with an AUROC of {areas[0]:.3f}, {names[1]} with {areas[1]:.3f}."]
    span = _span(paired)
    if paired.p is None:
        found.append("The difference has no spread on these images, so they cannot say how certain it is.")
    elif paired.p < 0.05:
        better = names[int(paired.difference > 0)]
        found.append(
            f"{better} is better on the same images: the difference is {paired.difference:+.3f}, 95 % interval {span}, "
            f"p = {paired.p:.2g}."
        )
    else:
        found.append(
            f"These images do not show that one is better: the difference is {paired.difference:+.3f}, 95 % interval "
            f"{span}, p = {paired.p:.2g}."
        )
    how = "with images of a group taken together" if paired.method == "clustered_delong" else "images independent"
    found.append(f"Second minus first; DeLong's test for two detectors on the same images, {how}.")
    return found


def _numbers(names: tuple[str, str], metrics: tuple[Metrics, Metrics], spans: Mapping[str, Paired]) -> str:
    lines: list[tuple[str, str, Callable[[Any], str]]] = [
        ("AUROC, images", "image_auroc", words.number),
        ("95 % interval", "image_auroc_ci", words.numbers),
        ("AUPRC, images", "auprc", words.number),
        ("Sensitivity", "sensitivity", words.percent),
        ("Specificity", "specificity", words.percent),
        ("AUROC, pixels", "pixel_auroc", words.number),
        ("AUPRO, regions", "aupro", words.number),
    ]
    body = []
    for title, key, told in lines:
        values = [m.get(key) for m in metrics]
        if all(value is None for value in values):
            continue
        both = all(isinstance(value, float) for value in values)
        difference = _signed(values[1] - values[0]) if both else ""  # type: ignore[operator]
        if key in spans:
            difference += f" ({_span(spans[key])})"
        body.append([title, *(told(value) for value in values), difference])
    head = ("Measure", escape(names[0]), escape(names[1]), "Second minus first")
    return table("Measured on the same test pictures", head, body)


def _gallery(names: tuple[str, str], pairs: Sequence[Pair], scales: Sequence[tuple[float, float]]) -> str:
    intro = (
        "The pictures on whose rank the two differ most, each beside the maps of "
        f"{escape(names[0])} and {escape(names[1])}. Each run has a scale of colours "
        "of its own. What is known to be abnormal is outlined."
    )
    return f'<p>{intro}</p><ul class="gallery">{"".join(_card(names, pair, scales) for pair in pairs)}</ul>'


def _card(names: tuple[str, str], pair: Pair, scales: Sequence[tuple[float, float]]) -> str:
    kind = "abnormal" if pair.label else "normal"
    plain = pair.image if pair.mask is None else pictures.outline(pair.image, pair.mask)
    shown = [plain, *(pictures.overlay(pair.image, p.map, *s) for p, s in zip(pair.panes, scales, strict=True))]
    texts = [pair.name, *(f"{pair.name}: map of {name}" for name in names)]
    images = "".join(
        f'<img loading="lazy" src="{pictures.data_uri(picture)}" alt="{escape(text)}">'
        for picture, text in zip(shown, texts, strict=True)
    )
    said = "".join(
        f'<span class="path">{escape(name)}: {words.score(pane.score)}, above {100 * pane.rank:.0f} % of the pictures'
        f"{_decision(pane.decision)}</span>"
        for name, pane in zip(names, pair.panes, strict=True)
    )
    return (
        f'<li><figure><div class="panes">{images}</div><figcaption><span class="outcome">{kind}</span>'
        f'<span class="score">{escape(pair.name)}</span>{said}</figcaption></figure></li>'
    )


def _signed(difference: float) -> str:
    """With its sign, where anything is left after rounding."""
    return f"{difference:+.3f}" if abs(difference) >= 0.0005 else "0.000"


def _span(paired: Paired) -> str:
    low, high = paired.interval
    return f"{low:+.3f} to {high:+.3f}"


def _decision(decision: bool | None) -> str:
    return "" if decision is None else ", flagged" if decision else ", passed"


_STYLE = """
.plots figure{max-width:34rem}
.plot .curve.second{stroke:var(--ink);stroke-dasharray:7 4}
.gallery figure{min-width:0}
.gallery figcaption span{min-width:0;overflow-wrap:anywhere}
.gallery figcaption .outcome{min-width:max-content}
"""
