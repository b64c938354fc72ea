"""The page: well-formed, self-contained, escaped, honest in its words; its plots and pictures show what they get."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.errors import ArgumentError, OutputError
from normscan.report import Row, page, pictured, pictures, plots, words, write_page
from normscan.scoring import calibrate, metrics
from outline import Outline


def example(n: int = 60, shift: float = 2.0, images: bool = True) -> dict[str, Any]:
    """Arguments of write_page for n normal and n abnormal images."""
    random = np.random.default_rng(0)
    found = calibrate.calibrate(random.standard_normal(100))
    assert found is not None
    labels = [0] * n + [1] * n
    scores = random.standard_normal(2 * n) + shift * np.array(labels)
    rows = [
        Row(
            f"test/{i}.png",
            label,
            float(score),
            bool(score > found.threshold),
            random.integers(0, 256, (20, 30, 3), dtype=np.uint8) if images else None,
            random.random((20, 30), dtype=np.float32) if images else None,
            np.arange(600).reshape(20, 30) < 90 if label and images else None,
        )
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    summary = metrics.summary(labels, scores, threshold=found.threshold, target_specificity=0.95, n_calibration=100)
    provenance = {"model": "a.normscan", "engine": {"name": "onnxruntime", "versions": [1, 2]}, "note": None}
    return {
        "title": "ocad: skin",
        "metrics": summary,
        "calibration": asdict(found),
        "rows": rows,
        "provenance": provenance,
    }


def written(folder: Path, **arguments: Any) -> Outline:
    path = write_page(folder, **arguments)
    assert path == folder / "index.html"
    return Outline(path.read_text("utf-8"))


def test_the_page_is_accessible_and_complete(tmp_path: Path) -> None:
    arguments = example()
    arguments["metrics"]["baselines"] = {
        "random_network": 0.6,
        "colour": {"image_auroc": 0.7, "image_auroc_ci": [0.6, 0.8]},
    }
    found = written(tmp_path / "new" / "folder", **arguments)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == len(found.all("main")) == 1
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for section in found.all("section"):
        assert section["aria-labelledby"] in ids
    assert [s["class"] for s in found.all("section")] == [
        "verdict", "separation", "numbers", "baselines", "pictures", "provenance",
    ]  # fmt: skip
    assert len(found.all("caption")) == len(found.all("table")) == 3
    assert all(image["alt"] and image["loading"] == "lazy" for image in found.all("img"))
    assert len(found.all("img")) == 3 * page.GALLERY
    assert found.text.count(words.NOTICE) == 2
    for expected in ("engine.versions", "1, 2", "note", "0.600", "0.700", "0.600\N{EN DASH}0.800"):
        assert expected in found.text


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    found = written(tmp_path, **example())
    text = (tmp_path / "index.html").read_text("utf-8")
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|\bon\w+=", re.sub(r"base64,[^\"]*", "", text))
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in found.all("img"))
    policies = [m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


@settings(deadline=None, max_examples=25)
@given(st.text(st.characters(codec="utf-8"), min_size=1) | st.just("\"'><script>alert(1)</script>&amp;"))
def test_every_text_is_escaped(tmp_path_factory: pytest.TempPathFactory, evil: str) -> None:
    arguments = example(3)
    arguments["metrics"]["baselines"] = {evil: 0.5}
    arguments["title"] = evil
    arguments["rows"] = [replace(row, path_label=evil) for row in arguments["rows"]]
    arguments["rows"].append(Row(evil, None, float("nan"), None))
    arguments["provenance"] = {evil: {evil: [evil]}}
    plain = written(tmp_path_factory.mktemp("plain"), **example(3) | {"metrics": arguments["metrics"]})
    found = written(tmp_path_factory.mktemp("evil"), **arguments)
    assert found.all("script") == []
    assert {name for name, _ in found.tags} == {name for name, _ in plain.tags}


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(tmp_path, **example(3))
    before = (tmp_path / "index.html").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        write_page(tmp_path, **example(4))
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_bytes() == before


def test_verdict_in_words() -> None:
    def said(**changes: Any) -> str:
        return " ".join(words.sentences({**summary, **changes}, {"n": 100}, 120, []))

    summary = example(images=False)["metrics"]
    counts = summary["counts"]
    assert f"{counts['true_positive']} of 60 abnormal images are found" in said()
    assert f"{counts['true_negative']} of 60 normal images pass" in said()
    assert "the promise holds" in said()
    assert "the promise is broken" in said(specificity=0.5, specificity_as_promised=False)
    assert "more pass than promised" in said(specificity=1.0, specificity_as_promised=False)
    assert "does not show that the model does better" in said(image_auroc=0.55, image_auroc_ci=[0.45, 0.65])
    assert "worse than guessing" in said(image_auroc=0.2, image_auroc_ci=[0.1, 0.3])
    assert "do not overlap" in said(image_auroc=1.0, image_auroc_ci=[1.0, 1.0])
    assert "does not beat colour" in said(baselines={"colour": 0.999, "other": 0.2})
    assert "strongest method that learns no network, other" in said(baselines={"colour": None, "other": 0.2})


def test_page_without_labels_threshold_or_pictures(tmp_path: Path) -> None:
    rows = [Row(f"{i}.png", None, float(i), None) for i in range(5)] + [Row("bad.png", None, float("nan"), None)]
    summary = metrics.summary([], [])
    found = written(tmp_path, title="t", metrics=summary, calibration=None, rows=rows, provenance={})
    assert [s["class"] for s in found.all("section")] == ["verdict", "separation"]
    assert "No threshold was calibrated" in found.text
    assert "1 of 6 images could not be scored and are in no number here: bad.png" in found.text
    assert "Unknown, 5 images" in found.text
    written(tmp_path, title="t", metrics={}, calibration=None, rows=[], provenance={})


def row(label: int | None, score: float, decision: bool | None) -> Row:
    return Row("x", label, score, decision)


def test_gallery_shows_the_most_wrong_first() -> None:
    rows = [row(0, 1, False), row(0, 7, True), row(1, 2, False), row(1, 9, True), row(0, 6, True), row(1, 3, False)]
    assert pictured(rows) == [2, 1, 5, 4, 3, 0]
    assert pictured([*rows, row(1, float("nan"), None)]) == [2, 1, 5, 4, 3, 0]
    many = [row(0, i, True) for i in range(100)] + [row(1, i, True) for i in range(100)]
    chosen = pictured(many)
    assert chosen == [*range(99, 75, -1), *range(199, 175, -1)]
    assert pictured(many[:100]) == [*range(99, 51, -1)]
    assert pictured([row(None, i, None) for i in range(3)]) == [2, 1, 0]


def test_gallery_takes_the_rows_that_have_pictures(tmp_path: Path) -> None:
    arguments = example()
    keep = {5, 70}
    arguments["rows"] = [
        r if i in keep else replace(r, image=None, map=None, mask=None) for i, r in enumerate(arguments["rows"])
    ]
    assert len(written(tmp_path, **arguments).all("img")) == 6
    arguments["rows"][5] = replace(arguments["rows"][5], image=None)
    arguments["rows"][70] = replace(arguments["rows"][70], map=None)
    assert len(written(tmp_path, **arguments).all("img")) == 2


# ---- plots


def points(text: str) -> list[list[float]]:
    return [[float(v) for v in pair.split(",")] for pair in text.split()]


def test_roc_is_the_curve() -> None:
    labels = [0] * 50 + [1] * 50
    scores = np.random.default_rng(1).standard_normal(100) + np.array(labels)
    false, true, _ = metrics.roc_curve(labels, scores)
    drawing = ElementTree.fromstring(plots.roc(false, true, area=0.7, point=(0.1, 0.6)))
    curve = np.array(points(drawing.find("polyline[@class='curve']").attrib["points"]))  # type: ignore[union-attr]
    frame = plots._Frame((0, 1), (0, 1))
    assert curve[0].tolist() == pytest.approx([frame.x(0), frame.y(0)], abs=0.05)
    assert curve[-1].tolist() == pytest.approx([frame.x(1), frame.y(1)], abs=0.05)
    unit = (curve - [frame.x(0), frame.y(0)]) / [frame.x(1) - frame.x(0), frame.y(1) - frame.y(0)]
    area = np.sum(np.diff(unit[:, 0]) * (unit[1:, 1] + unit[:-1, 1]) / 2)
    assert area == pytest.approx(metrics.auroc(labels, scores), abs=1e-3)
    circle = drawing.find("circle")
    assert circle is not None
    assert float(circle.attrib["cx"]) == pytest.approx(frame.x(0.1), abs=0.05)
    assert float(circle.attrib["cy"]) == pytest.approx(frame.y(0.6), abs=0.05)


def test_a_long_roc_is_thinned() -> None:
    x = np.linspace(0, 1, 100_000)
    for y in (x, np.sqrt(x), np.repeat(x[::1000], 1000)):
        assert len(plots.roc(x, y)) < 45_000


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6), max_size=20),
    st.lists(st.floats(-1e-6, 1e-6), min_size=1, max_size=20),
    st.none() | st.floats(-1e6, 1e6),
)
def test_histogram_of_anything_is_drawn_inside_its_frame(
    normal: list[float], abnormal: list[float], threshold: float | None
) -> None:
    drawing = ElementTree.fromstring(plots.histogram(normal, abnormal, threshold=threshold))
    for path in drawing.iter("path"):
        heights = [float(v) for v in re.findall(r"V([-\d.]+)", path.attrib["d"])]
        assert all(plots._TOP <= v <= plots._HEIGHT for v in heights)
        # Every image is in some bar: the heights over the axis add up to the whole of the class.
        base = float(path.attrib["d"].split(",")[1].split("V")[0])
        assert base - min(heights) > 1
    for line in drawing.iter("line"):
        assert plots._LEFT - 0.1 <= float(line.attrib["x1"]) <= plots._WIDTH


def test_histogram_bars_are_shares_of_the_class() -> None:
    drawing = ElementTree.fromstring(plots.histogram([0.0] * 3 + [1.0], [1.0]))
    normal = drawing.find("path[@class='normal']")
    abnormal = drawing.find("path[@class='abnormal']")
    assert normal is not None
    assert abnormal is not None
    heights = [sorted({float(v) for v in re.findall(r"V([-\d.]+)", p.attrib["d"])}) for p in (normal, abnormal)]
    base = heights[0][-1]
    full = base - heights[1][0]
    assert [(base - v) / full for v in heights[0]] == pytest.approx([0.75, 0.25, 0], abs=1e-3)


def test_scores_beyond_the_axis_are_in_the_outermost_bar() -> None:
    drawing = ElementTree.fromstring(plots.histogram(np.linspace(0, 1, 400), [1e9]))
    assert {text.text for text in drawing.iter("text")} >= {"0.5", "1"}  # the axis is that of the others
    abnormal = drawing.find("path[@class='abnormal']")
    assert abnormal is not None
    last, base = (float(v) for v in re.findall(r"V([-\d.]+)", abnormal.attrib["d"])[-2:])
    assert base - last > 100


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3e-7, 4e-7), (0.2, 1234), (1e6, 1e6 + 3)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = plots.ticks(low, high)
    assert 3 <= len(ticks) <= 11
    assert all(low <= t <= high for t in ticks)
    assert np.ptp(np.diff(ticks)) < 1e-6 * (high - low)


def test_plots_refuse_what_is_no_curve() -> None:
    with pytest.raises(ArgumentError, match=r"\[2\] and \[3\]"):
        plots.roc([0, 1], [0, 1, 1])
    with pytest.raises(ArgumentError, match="0 scores"):
        plots.histogram([], [])
    with pytest.raises(ArgumentError, match="finite"):
        plots.histogram([1.0, np.nan], [])


# ---- pictures


def test_heat_is_even_and_clipped() -> None:
    ramp = np.linspace(-1, 2, 301)[None]
    colours = pictures.heat(ramp, 0, 1)[0]
    assert colours[0].tolist() == [0, 0, 4]
    assert colours[-1].tolist() == [252, 255, 164]
    lightness = cv2.cvtColor(np.float32(colours[None] / 255), cv2.COLOR_RGB2LAB)[0, 100:201, 0]
    steps = np.diff(lightness[::10])
    assert (steps > 0).all()
    assert steps.max() < 2 * steps.min()  # equal steps of the value look equal


def test_heat_of_nan_and_of_a_flat_scale() -> None:
    values = np.array([[0.0, np.nan, np.inf, 1.0]])
    assert pictures.heat(values, 0, 1)[0, 1:3].tolist() == [[128] * 3, [128] * 3]
    flat = pictures.heat(values, 0, 0)
    assert flat[0, 0].tolist() == [0, 0, 4]
    assert flat[0, 3].tolist() == [252, 255, 164]
    with pytest.raises(ArgumentError, match="goes from 1 to 0"):
        pictures.heat(values, 1, 0)
    with pytest.raises(ArgumentError, match=r"map has shape \[4\]"):
        pictures.heat(values[0], 0, 1)


def test_overlay_grows_with_the_value_and_outlines_the_mask() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    values = np.tile(np.linspace(0, 1, 60), (40, 1))
    found = pictures.overlay(image, values, 0, 1)
    assert found[:, 0].tolist() == image[:, 0].tolist()
    assert (np.diff(np.abs(found[0].astype(int) - image[0]).sum(axis=1)) >= -12).all()
    mask = np.zeros((40, 60), bool)
    mask[10:30, 10:30] = True
    drawn = pictures.overlay(image, values, 0, 1, mask)
    changed = (drawn != found).any(axis=2)
    assert changed[10, 10:30].all()
    assert not changed[12:28, 12:28].any()
    assert not changed[:9].any()
    assert pictures.overlay(image, values[::4, ::4], 0, 1, mask[::2, ::2]).shape == image.shape


def test_scale_is_common_and_robust() -> None:
    maps = [np.linspace(0, 1, 10_000).reshape(100, 100), np.full((5, 5), np.nan)]
    assert pictures.scale_of(maps) == pytest.approx((0.01, 0.995), abs=1e-3)
    assert pictures.scale_of([]) == pictures.scale_of(maps[1:]) == (0, 1)


@pytest.mark.parametrize("shape", [(10, 20), (800, 300), (1, 999)])
def test_thumbnails_keep_their_aspect(shape: tuple[int, int]) -> None:
    uri = pictures.data_uri(np.full((*shape, 3), (250, 10, 10), np.uint8), side=100)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    factor = min(1, 100 / max(shape))
    assert decoded.shape[:2] == (max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor)))
    assert decoded[0, 0, 2] > 200 > decoded[0, 0, 0]  # red stays red


def test_eight_bit_of_every_type() -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    for pixels in (grey, expected, grey.astype(np.uint16) * 257, (grey / 255).astype(np.float32)):
        np.testing.assert_array_equal(pictures.eight_bit(pixels), expected)
    with pytest.raises(ArgumentError, match=r"uint8 of shape \[1, 3, 4\]"):
        pictures.eight_bit(np.zeros((1, 3, 4), np.uint8))


def test_write_overlay(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels, values = random.integers(0, 256, (12, 16, 3), dtype=np.uint8), random.random((12, 16))
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1])
    pictures.write_overlay(tmp_path / "maps" / "a.png", tmp_path / "a.png", values, (0, 1))
    drawn = cv2.imread(str(tmp_path / "maps" / "a.png"))
    np.testing.assert_array_equal(drawn[..., ::-1], pictures.overlay(pixels, values, 0, 1))
