"""Plots of single patients as inline SVG: all of them by what they have, and one of them among the others.

Like the plots of `plots`, they carry CSS classes in place of colours, and say in words what they show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile

from normscan.errors import ArgumentError
from normscan.report.plots import shortened, svg, ticks

_WIDTH, _LEFT, _RIGHT = 640.0, 116.0, 18.0  # names of rows are left of the axis
_HEAD, _ROW, _FOOT = 21.0, 70.0, 50.0  # a threshold's name, a row of dots, the axis
_RADII = (5.5, 5.0, 4.5, 4.0, 3.5, 3.0, 2.5)  # of dots: the first that leaves all of them apart
_LETTER = 6.9  # the usual width of one; half as much again on a narrow screen
_NAMED = 12  # wrong patients with their names beside them; more would hide the dots
KINDS = ("untold", "right", "other", "wrong")
"""Classes of dots, the later over the earlier: nothing to compare with, right, of another density, wrong."""

_Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Dot:
    """One patient."""

    name: str
    score: float
    kind: str  # one of `KINDS`
    said: str  # on pointing at it
    href: str


@dataclass(frozen=True, slots=True)
class Level:
    """A threshold: what a patient above it is called, and from where to where it went over the folds."""

    name: str
    at: float
    folds: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """Scores to SVG x. From 0, unless scores are below; `label` says what a score is and `told` how it is written."""

    low: float
    high: float
    label: str
    told: Callable[[float], str]
    mark: Callable[[float], str]  # how the axis itself is written, in round numbers

    def x(self, score: float) -> float:
        """SVG x of a score."""
        return _LEFT + (score - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)


def axis(values: Iterable[float], label: str, told: Callable[[float], str], mark: Callable[[float], str]) -> Axis:
    """The axis that holds all values, a little longer; ArgumentError where there are none or one is not finite."""
    found = list(values)
    if not found or not all(math.isfinite(v) for v in found):
        raise ArgumentError(f"axis: {len(found)} values, expected at least one, all of them finite")
    low, high = min(found), max(found)
    margin = 0.03 * (high - min(low, 0.0)) or 1.0
    return Axis(low - margin if low < 0 else 0.0, high + margin, label, told, mark)


def strip(rows: Sequence[tuple[str, Sequence[Dot]]], levels: Sequence[Level], along: Axis) -> str:
    """A row of dots for each (name, patients), with thresholds as lines and their range over the folds as bands.

    Every dot leads to its patient's page; wrong ones are drawn over the others and carry their names where there is
    room. The links are for the mouse: who reads by keyboard or ear has the same in the table of patients.
    """
    top = _HEAD * len(levels) + 4
    bottom = top + _ROW * len(rows)
    parts = [_lines(levels, along, bottom), _axis(along, bottom)]
    radius = _radius(rows, along)
    named = sum(dot.kind == "wrong" for _, dots in rows for dot in dots) <= _NAMED
    spoken = []
    for i, (name, dots) in enumerate(rows):
        y = top + _ROW * i
        count = "1 patient" if len(dots) == 1 else f"{len(dots)} patients"
        parts.append(f'<line class="grid" x1="0" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="label" x="0" y="{y + _ROW / 2 - 4:.1f}">{escape(name)}</text>')
        parts.append(f'<text x="0" y="{y + _ROW / 2 + 15:.1f}">{count}</text>')
        parts.append(_dots(dots, along, y + _ROW / 2, radius, named=named))
        wrong = [dot.name for dot in dots if dot.kind == "wrong"]
        spoken.append(f"{name}: {count}{', on the wrong side ' if wrong else ''}{', '.join(wrong)}.")
    spoken += [f"Patients above {along.told(level.at)} are called {level.name}." for level in levels]
    return svg("strip", "Scores of patients", " ".join(spoken), parts, (_WIDTH, bottom + _FOOT))


def gauge(
    score: float,
    levels: Sequence[Level],
    along: Axis,
    above: tuple[str, Sequence[float]] = ("", ()),
    below: tuple[str, Sequence[float]] = ("", ()),
) -> str:
    """One patient's score between the thresholds, and the others of two kinds (name, scores) as bars.

    A bar's length goes with the root of how many it stands for, so that many patients at 0 leave the others visible.
    """
    top = _HEAD * len(levels) + 4
    line = top + 58
    bottom = line + 36
    x = along.x(score)
    anchor = "end" if x > _WIDTH - 60 else "middle"
    parts = [
        _lines(levels, along, bottom),
        f'<text x="0" y="{line - 8}">{escape(above[0])}</text><text x="0" y="{line + 17}">{escape(below[0])}</text>',
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{line}" y2="{line}"/>',
        _bars(line, along, above[1], below[1]),
        f'<circle class="this" cx="{x:.1f}" cy="{line}" r="8"/>',
        f'<text class="value" x="{x:.1f}" y="{line - 33}" text-anchor="{anchor}">{escape(along.told(score))}</text>',
        _axis(along, bottom),
    ]
    spoken = f"This patient's score is {along.told(score)}. " + " ".join(
        f"Above {along.told(level.at)} a patient is called {level.name}." for level in levels
    )
    return svg("gauge", "The score between the thresholds", spoken, parts, (_WIDTH, bottom + _FOOT))


def meter(score: float, kind: str, levels: Sequence[Level], along: Axis) -> str:
    """The score and the thresholds on a short line, for a table whose other cells say the same in words."""
    places = [_short(level.at, along) for level in levels]
    marks = "".join(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="12"/>' for x in places)
    return (
        '<svg class="plot meter" viewBox="-6 0 112 12" aria-hidden="true"><line class="track" x1="0" x2="100" y1="6" '
        f'y2="6"/>{marks}<circle class="{kind}" cx="{_short(score, along):.1f}" cy="6" r="4"/></svg>'
    )


def _short(score: float, along: Axis) -> float:
    return 100 * (score - along.low) / (along.high - along.low)


def _bars(line: float, along: Axis, above: Iterable[float], below: Iterable[float]) -> str:
    """Scores on both sides of a line, those within four SVG units as one bar."""
    sides = [Counter(4 * round(along.x(score) / 4) for score in scores) for scores in (above, below)]
    most = max((count for bars in sides for count in bars.values()), default=1)
    drawn = []
    for bars, way, kind in zip(sides, (-1, 1), ("over", "below"), strict=True):
        path = "".join(f"M{x},{line + 4 * way}v{22 * way * math.sqrt(n / most):.1f}" for x, n in bars.items())
        if path:
            drawn.append(f'<path class="{kind}" d="{path}"/>')
    return "".join(drawn)


def _lines(levels: Sequence[Level], along: Axis, bottom: float) -> str:
    """Thresholds, each with its name on a line of its own, so that close ones do not overprint each other."""
    parts = []
    for i, level in enumerate(levels):
        x, y = along.x(level.at), _HEAD * i + 15
        if level.folds is not None:
            left, right = (along.x(value) for value in level.folds)
            place = f'x="{left:.1f}" width="{max(right - left, 1.0):.1f}"'
            parts.append(f'<rect class="folds" {place} y="{y + 5:.1f}" height="{bottom - y - 5:.1f}"/>')
        text = f"{level.name} above {along.told(level.at)}"
        beyond = x + 1.5 * _LETTER * len(text) > _WIDTH
        place = f'x="{x - 6:.1f}" text-anchor="end"' if beyond else f'x="{x + 6:.1f}"'
        parts.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 11:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="name" y="{y:.1f}" {place}>{escape(text)}</text>')
    return "".join(parts)


def _axis(along: Axis, bottom: float) -> str:
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>']
    for value in ticks(along.low, along.high):
        x = along.x(value)
        anchor = "end" if x > _WIDTH - 30 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>')
        text = escape(along.mark(value))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20:.1f}" text-anchor="{anchor}">{text}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{bottom + 42:.1f}" text-anchor="middle">{escape(along.label)}</text>'
    )
    return "".join(parts)


def _radius(rows: Sequence[tuple[str, Sequence[Dot]]], along: Axis) -> float:
    """The largest radius at which no two dots of a row touch, or the smallest where there is none."""
    columns = [sorted(along.x(dot.score) for dot in dots) for _, dots in rows]
    return next((r for r in _RADII if all(_apart(xs, r)[1] for xs in columns)), _RADII[-1])


def _dots(dots: Sequence[Dot], along: Axis, middle: float, radius: float, *, named: bool) -> str:
    """Dots side by side where their scores are close, the middle of the row first."""
    ordered = sorted(dots, key=lambda dot: dot.score)
    places, _ = _apart([along.x(dot.score) for dot in ordered], radius)
    placed = sorted(
        ((dot, x, middle + y) for dot, (x, y) in zip(ordered, places, strict=True)),
        key=lambda entry: KINDS.index(entry[0].kind),
    )
    taken = [(x - radius, y - radius, x + radius, y + radius) for _, x, y in placed]
    parts = []
    for dot, x, y in placed:
        kind = dot.kind if radius >= 4 else f"{dot.kind} small"
        parts.append(
            f'<a href="{escape(dot.href)}" tabindex="-1"><circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{radius:.1f}"><title>{escape(dot.said)}</title></circle></a>'
        )
        if named and dot.kind == "wrong":
            parts.append(_label(shortened(dot.name, 16), (x, y), radius, taken))
    return "".join(parts)


def _apart(xs: Sequence[float], radius: float) -> tuple[list[tuple[float, float]], bool]:
    """Ascending xs -> (x, offset) of dots in a row, and whether there was room to keep all of them apart."""
    distance = 2 * radius + 1
    steps = int((_ROW / 2 - 4 - radius) / distance)
    offsets = [0.0, *(sign * k * distance for k in range(1, steps + 1) for sign in (-1, 1))]
    placed: list[tuple[float, float]] = []
    apart = True
    for x in xs:
        near = list(takewhile(lambda other, x=x: x - other[0] < distance, reversed(placed)))  # type: ignore[misc]
        gaps = [min((math.hypot(x - a, y - b) for a, b in near), default=distance) for y in offsets]
        free = [y for y, gap in zip(offsets, gaps, strict=True) if gap >= distance]
        apart = apart and bool(free)
        placed.append((x, free[0] if free else offsets[gaps.index(max(gaps))]))
    return placed, apart


def _label(text: str, at: tuple[float, float], radius: float, taken: list[_Box]) -> str:
    """The text right or left of a dot where it touches nothing in `taken`, which it then joins; else nothing."""
    (x, y), wide = at, _LETTER * len(text)
    gap = radius + 5
    for start, anchor in ((x + gap, "start"), (x - gap - wide, "end")):
        box = (start, y - 6, start + wide, y + 6)
        if box[0] >= _LEFT and box[2] <= _WIDTH and not any(_touch(box, other) for other in taken):
            taken.append(box)
            place = start if anchor == "start" else start + wide
            return f'<text class="who" x="{place:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    return ""


def _touch(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
