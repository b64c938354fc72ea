"""Plots of patients: dots and thresholds are where they belong, and nothing is drawn outside."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.errors import ArgumentError
from normscan.report import strips, words

LEVELS = [strips.Level("infected", 0.12, (0.11, 0.13)), strips.Level("high density", 0.45, (0.4, 0.5))]


def drawn(rows: Sequence[tuple[str, list[strips.Dot]]]) -> ElementTree.Element:
    along = strips.axis([0, 1], "share", words.percent, words.percent)
    return ElementTree.fromstring(strips.strip(rows, LEVELS, along))


def dot(score: float, kind: str = "right", name: str = "P") -> strips.Dot:
    return strips.Dot(name, score, kind, "said", "001.html")


def test_dots_lie_at_their_scores_and_apart() -> None:
    scores = np.random.default_rng(0).random(60).round(2).tolist()
    circles = list(drawn([("Negative", [dot(s) for s in scores])]).iter("circle"))
    along = strips.axis([0, 1], "share", words.percent, words.percent)
    assert sorted(float(c.attrib["cx"]) for c in circles) == pytest.approx(sorted(map(along.x, scores)), abs=0.06)
    places = np.array([(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles])
    gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e3 * np.eye(60)
    assert gaps.min() >= 2 * float(circles[0].attrib["r"])


def test_crowded_dots_stay_in_their_row() -> None:
    plot = drawn([("Negative", [dot(0.0)] * 300), ("Low density", [dot(0.0)])])
    *crowd, other = (float(c.attrib["cy"]) for c in plot.iter("circle"))
    assert max(crowd) < float(other) - 30
    assert max(crowd) - min(crowd) < 66


def test_wrong_dots_are_on_top_and_named() -> None:
    plot = drawn([("Negative", [dot(0.9, "wrong", "B <b>"), dot(0.1), dot(0.8, "other")])])
    assert [c.attrib["class"] for c in plot.iter("circle")] == ["right", "other", "wrong"]
    assert "B <b>" in [t.text for t in plot.iter("text")]
    assert "on the wrong side B <b>" in (plot.findtext("desc") or "")
    for number, named in ((12, True), (13, False)):
        many = drawn([("Negative", [dot(i / 13, "wrong", f"B{i}") for i in range(number)])])
        assert ("B3" in [t.text for t in many.iter("text")]) == named


def test_thresholds_are_lines_and_folds_are_bands() -> None:
    along = strips.axis([0, 1], "share", words.percent, words.percent)
    plot = drawn([("Negative", [dot(0.1)])])
    lines = [float(e.attrib["x1"]) for e in plot.iter("line") if e.attrib["class"] == "threshold"]
    assert lines == pytest.approx([along.x(0.12), along.x(0.45)], abs=0.06)
    bands = [e for e in plot.iter("rect") if e.attrib["class"] == "folds"]
    assert float(bands[1].attrib["x"]) == pytest.approx(along.x(0.4), abs=0.06)
    assert float(bands[1].attrib["width"]) == pytest.approx(along.x(0.5) - along.x(0.4), abs=0.1)


def test_an_axis_needs_a_value() -> None:
    with pytest.raises(ArgumentError, match="0 values"):
        strips.axis([], "", str, str)
    with pytest.raises(ArgumentError, match="finite"):
        strips.axis([float("nan")], "", str, str)
    assert strips.axis([0.0], "", str, str).high > 0
    assert strips.axis([-3.0, -2.0], "", str, str).low < -3


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e6, 1e6))
def test_anything_is_drawn_inside_its_frame(scores: list[float], threshold: float) -> None:
    along = strips.axis([*scores, threshold], "score", words.score, words.score)
    levels = [strips.Level("infected", threshold)]
    for text in (
        strips.strip([("Negative", [dot(s, "wrong") for s in scores])], levels, along),
        strips.gauge(scores[0], levels, along, ("others", scores)),
    ):
        plot = ElementTree.fromstring(text)
        width = float(plot.attrib["viewBox"].split()[2])
        for circle in plot.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= width
