"""Plots as inline SVG: the ROC curve and the histogram of scores (those of patients are in `strips`).

They carry no colour of their own but CSS classes (`curve`, `normal`, `abnormal`, `axis`, ...), so that they follow the
page into dark mode and print. Each has a title and a description for readers who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError

Array = npt.NDArray[np.float64]

Curve = tuple[str, Array, Array, float]

_WIDTH, _HEIGHT = 480.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 26.0, 20.0, 52.0
_BINS = 36
_KINDS = ("normal", "abnormal", "unknown")


def roc(
    false_positive: npt.ArrayLike,
    true_positive: npt.ArrayLike,
    *,
    area: float | None = None,
    point: tuple[float, float] | None = None,
) -> str:
    """ROC curve from its corner points, both [n] in 0..1, ascending.

    area: AUROC for the legend; point: (false positive rate, sensitivity) at the threshold.
    """
    x, y = np.asarray(false_positive, np.float64), np.asarray(true_positive, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ArgumentError(
            f"roc: rates have shapes {list(x.shape)} and {list(y.shape)}, expected the same [n], n >= 2"
        )
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(frame.x(x), frame.y(y)))
    ticks = [(v, f"{100 * v:.0f} %") for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts = [
        frame.axes(ticks, ticks, "False alarms (share of normal images flagged)", "Found (share of abnormal images)"),
        f'<polyline class="chance" points="{frame.x(0):.1f},{frame.y(0):.1f} {frame.x(1):.1f},{frame.y(1):.1f}"/>',
        f'<polygon class="under" points="{line} {frame.x(1):.1f},{frame.y(0):.1f}"/>',
        f'<polyline class="curve" points="{line}"/>',
    ]
    legend = [("curve", "This model" if area is None else f"This model, AUROC {area:.3f}"), ("chance", "Chance, 0.5")]
    spoken = "ROC curve." if area is None else f"ROC curve with an area of {area:.3f}."
    if point is not None:
        parts.append(f'<circle class="point" cx="{frame.x(point[0]):.1f}" cy="{frame.y(point[1]):.1f}" r="6"/>')
        legend.append(("point", f"At the threshold: {100 * point[1]:.1f} % found,"))
        legend.append(("", f"{100 * point[0]:.1f} % false alarms"))
        spoken += f" At the threshold {point[1]:.1%} are found and {point[0]:.1%} are false alarms."
    parts.append(_legend(legend, frame.x(1) - 226, frame.y(0) - 20 * len(legend) - 2))
    return svg("roc", "ROC curve", spoken, parts)


def two_rocs(first: Curve, second: Curve) -> str:
    """Two ROC curves in one frame, the second dashed; each (name, false positive rates, true positive rates, AUROC)."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    ticks = [(v, f"{100 * v:.0f} %") for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts = [
        frame.axes(ticks, ticks, "False alarms (share of normal images flagged)", "Found (share of abnormal images)"),
        f'<polyline class="chance" points="{frame.x(0):.1f},{frame.y(0):.1f} {frame.x(1):.1f},{frame.y(1):.1f}"/>',
    ]
    legend, spoken = [], "Two ROC curves."
    for kind, (name, x, y, area) in zip(("curve", "curve second"), (first, second), strict=True):
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in _thinned(frame.x(x), frame.y(y)))
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
        legend.append((kind, f"{shortened(name)}, AUROC {area:.3f}"))
        spoken += f" {name} has an area of {area:.3f}."
    legend.append(("chance", "Chance, 0.5"))
    parts.append(_legend(legend, frame.x(1) - 272, frame.y(0) - 20 * len(legend) - 2))
    return svg("roc", "ROC curves", spoken, parts)


def shortened(name: str, most: int = 21) -> str:
    """A name that fits into the legend: its middle goes first."""
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}\N{HORIZONTAL ELLIPSIS}{name[-(most // 2) :]}"


def histogram(
    normal: npt.ArrayLike, abnormal: npt.ArrayLike, unknown: npt.ArrayLike = (), *, threshold: float | None = None
) -> str:
    """Scores [n] of normal, abnormal and unlabelled images, each as shares of its kind, with the threshold.

    The axis spans the inner 99 % of scores and the threshold; scores beyond it are counted in the outermost bars.
    """
    sets = [np.asarray(given, np.float64) for given in (normal, abnormal, unknown)]
    scores = np.concatenate(sets)
    if any(s.ndim != 1 for s in sets) or len(scores) == 0 or not np.isfinite(scores).all():
        raise ArgumentError(
            f"histogram: {len(scores)} scores, expected at least one, all of them finite, in [n] arrays"
        )
    low, high = _span(scores, threshold)
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(np.clip(s, low, high), edges)[0] / max(len(s), 1) for s in sets]
    top = max(float(s.max()) for s in shares) * 1.22  # air for the legend
    frame = _Frame((low, high), (0.0, top))
    across = [(v, f"{v:.4g}") for v in ticks(low, high)]
    up = [(v, f"{v:.3g} %") for v in ticks(0, 100 * top)]
    parts = [frame.axes(across, [(v / 100, text) for v, text in up], "Score", "Share of its kind")]
    legend = []
    for kind, share, given in zip(_KINDS, shares, sets, strict=True):
        if len(given):
            parts.append(f'<path class="{kind}" d="{frame.steps(edges, share)}"/>')
            legend.append((kind, f"{kind.capitalize()}, {len(given)} images"))
    spoken = "Histogram of scores. " + " ".join(f"{text}." for _, text in legend)
    if threshold is not None:
        x = frame.x(threshold)
        parts.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.y(0):.1f}" y2="{_TOP:.1f}"/>')
        legend.append(("threshold", f"Threshold, {threshold:.4g}"))
        spoken += f" The threshold is {threshold:.4g}."
    parts.append(_legend(legend, frame.x(high) - 168, _TOP + 2))
    return svg("histogram", "Histogram of scores", spoken, parts)


def whisker(value: float, interval: tuple[float, float] | Sequence[float] | None) -> str:
    """A dot with its interval on a line from 0 to 1, for a table whose other cells say the same in numbers."""
    line = ""
    if interval is not None:
        line = f'<line class="range" x1="{200 * interval[0]:.1f}" x2="{200 * interval[1]:.1f}" y1="6" y2="6"/>'
    return (
        '<svg class="whisker" viewBox="-4 0 208 12" aria-hidden="true">'
        f'<line class="chance" x1="100" x2="100" y1="0" y2="12"/>{line}'
        f'<circle class="dot" cx="{200 * value:.1f}" cy="6" r="3"/></svg>'
    )


class _Frame:
    """Data to SVG coordinates, and what is drawn in them."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._x0, self._x1 = across
        self._y0, self._y1 = up

    def x(self, value: Any) -> Any:
        """SVG x of a number or an array."""
        return _LEFT + (value - self._x0) / (self._x1 - self._x0) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: Any) -> Any:
        """SVG y of a number or an array."""
        return _HEIGHT - _BOTTOM - (value - self._y0) / (self._y1 - self._y0) * (_HEIGHT - _TOP - _BOTTOM)

    def steps(self, edges: Array, heights: Array) -> str:
        """The outline of bars, closed along the axis."""
        path = f"M{self.x(edges[0]):.1f},{self.y(0):.1f}"
        for right, height in zip(edges[1:], heights, strict=True):
            path += f"V{self.y(height):.1f}H{self.x(right):.1f}"
        return path + f"V{self.y(0):.1f}Z"

    def axes(
        self, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]], label_x: str, label_y: str
    ) -> str:
        left, right, bottom, top = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP
        lines, words = [], []
        for value, text in up:
            y = self.y(value)
            lines.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            words.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for value, text in across:
            x = self.x(value)
            lines.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
            words.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{escape(text)}</text>')
        lines.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (left + right) / 2
        words.append(
            f'<text class="label" x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(label_x)}</text>'
        )
        turn = f'transform="translate(14 {(top + bottom) / 2}) rotate(-90)"'
        words.append(f'<text class="label" {turn} text-anchor="middle">{escape(label_y)}</text>')
        return "".join(lines + words)


def svg(name: str, title: str, spoken: str, parts: Sequence[str], size: tuple[float, float] = (_WIDTH, _HEIGHT)) -> str:
    """The whole drawing, with its title and what it shows in words; `name` is its own among those of a page."""
    return (
        f'<svg class="plot" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-text">{escape(spoken)}</desc>{"".join(parts)}</svg>'
    )


def _legend(entries: Sequence[tuple[str, str]], x: float, y: float) -> str:
    """Lines of (kind of mark, text); a line without mark continues the one above."""
    parts = []
    for row, (kind, text) in enumerate(entries):
        middle = y + 10 + 20 * row
        if kind in _KINDS:
            parts.append(f'<rect class="{kind}" x="{x + 3:.1f}" y="{middle - 6:.1f}" width="16" height="12"/>')
        elif kind == "point":
            parts.append(f'<circle class="point" cx="{x + 11:.1f}" cy="{middle:.1f}" r="5"/>')
        elif kind:
            parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x + 22:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        parts.append(f'<text x="{x + 30:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>')
    return "".join(parts)


def _thinned(x: Array, y: Array) -> list[tuple[float, float]]:
    """Points of a rising curve in tenths of a pixel, without those inside a straight run or within half a pixel."""
    points: list[tuple[int, int]] = []
    tenths = np.rint(10 * np.stack([x, y], axis=1)).astype(int).tolist()
    for a, b in tenths:
        if len(points) > 1 and (points[-2][0] == points[-1][0] == a or points[-2][1] == points[-1][1] == b):
            points[-1] = (a, b)
        elif not points or max(abs(a - points[-1][0]), abs(b - points[-1][1])) >= 5:
            points.append((a, b))
    if points[-1] != tuple(tenths[-1]):
        points.append(tuple(tenths[-1]))
    return [(a / 10, b / 10) for a, b in points]


def _span(scores: Array, threshold: float | None) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(scores, (0.005, 0.995)))
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    margin = 0.02 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from low to high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]
