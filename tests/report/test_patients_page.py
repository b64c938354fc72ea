"""The report of patients: an index and a page for each, well-formed, linked, escaped, right in its counts and order."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.data.histology import DENSITIES, Density
from normscan.errors import UsageError
from normscan.report import patients, words
from normscan.report.patients_page import Patch, Patient, write_patients
from outline import Outline

THRESHOLDS: dict[str, Any] = {
    "patch": {"stain_ae": {"median": 0.031, "folds": [0.03, 0.033]}, "patch_cnn": {"median": 0.61, "folds": []}},
    "positive": {"median": 0.12, "folds": [0.11, 0.12, 0.13]},
    "high": {"median": 0.45, "folds": [0.4, 0.45, 0.5]},
}


def patient(
    name: str, truth: Density | None, diagnosis: Density | None, score: float, patches: int = 0, **more: Any
) -> Patient:
    random = np.random.default_rng(0)
    shown = [
        Patch(
            f"{name}/{i}.png",
            1 - i / 20,
            i < 2,
            random.integers(0, 256, (24, 24, 3), dtype=np.uint8),
            random.random((24, 24)) if more.get("maps", True) else None,
        )
        for i in range(patches)
    ]
    shares = more.get("shares", {"stain_ae": score})
    return Patient(name, truth, diagnosis, score, shares, 50, more.get("fold"), lambda: shown)


COHORT = (
    patient("N1", "negative", "negative", 0.02, fold=0),
    patient("N2", "negative", "negative", 0.08, fold=1),
    patient("N3", "negative", "low", 0.2, 3, fold=2),
    patient("L1", "low", "low", 0.3, 14, fold=0),
    patient("L2", "low", "negative", 0.04, 1, fold=1),
    patient("L3", "low", "high", 0.5, fold=2),
    patient("H1", "high", "high", 0.9, fold=0),
    patient("H2", "high", "high", 0.7, fold=1),
)


def numbers(cohort: Sequence[Patient]) -> dict[str, Any]:
    """What the caller measures, for patients whose truth and diagnosis are known."""
    infected = [p for p in cohort if p.truth != "negative"]
    negative = [p for p in cohort if p.truth == "negative"]
    found = sum(p.diagnosis != "negative" for p in infected)
    passed = sum(p.diagnosis == "negative" for p in negative)
    return {
        "patients": len(cohort),
        "infected": len(infected),
        "negative": len(negative),
        "true_positive": found,
        "true_negative": passed,
        "auroc": 0.933,
        "auroc_ci": [0.8, 0.99],
        "sensitivity": found / max(len(infected), 1),
        "sensitivity_ci": [0.4, 0.99],
        "specificity": passed / max(len(negative), 1),
        "specificity_ci": [0.2, 0.95],
        "confusion": {
            t: {d: sum((p.truth, p.diagnosis) == (t, d) for p in cohort) for d in DENSITIES} for t in DENSITIES
        },
        "methods": {"stain_ae": {"auroc": 0.9, "auroc_ci": [0.7, 0.97]}, "patch_cnn": {"auroc": 0.85}},
        "how": "Each patient by thresholds chosen on the others, in 3 folds.",
    }


def example(**changes: Any) -> dict[str, Any]:
    """Arguments of write_patients."""
    cohort = changes.get("patients", COHORT)
    arguments: dict[str, Any] = {
        "title": "a cohort",
        "metrics": numbers(cohort),
        "patients": cohort,
        "thresholds": THRESHOLDS,
        "map_scale": (0.0, 1.0),
        "provenance": {"data": "cohort", "seed": None, "models": ["a", None]},
    }
    return arguments | changes


def outline(path: Path) -> Outline:
    return Outline(path.read_text("utf-8"))


def written(folder: Path, **changes: Any) -> tuple[Outline, list[Outline]]:
    """The index and the patients' pages, in order, after the checks that hold for every report."""
    index = write_patients(folder, **example(**changes))
    assert index == folder / "index.html"
    files = sorted((folder / "patients").iterdir())
    pages = [outline(path) for path in (index, *files)]
    for page, path in zip(pages, [index, *files], strict=True):
        assert page.text.count(words.NOTICE) == 2
        assert not re.search(r"\b(None|nan|inf)\b", page.text)
        for link in page.all("a"):
            assert (path.parent / str(link["href"])).resolve() in [index.resolve(), *(f.resolve() for f in files)]
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert set(ids) >= {section["aria-labelledby"] for section in page.all("section")}
        assert not any(" " in str(name) for name in ids)
        assert all(image["alt"] and image["loading"] == "lazy" for image in page.all("img"))
    return pages[0], pages[1:]


def sections(page: Outline) -> list[str | None]:
    return [section["class"] for section in page.all("section")]


def listed(index: Outline) -> list[list[str]]:
    """The rows of the table of patients, without its head."""
    start = next(i for i, row in enumerate(index.rows) if row[0] == "Patient")
    rows = index.rows[start + 1 :]
    return rows[: next((i for i, row in enumerate(rows) if row[0] == "Field"), len(rows))]


# ---- index


def test_the_index_is_accessible_and_complete(tmp_path: Path) -> None:
    index, pages = written(tmp_path / "new" / "folder")
    assert sections(index) == ["verdict", "separation", "methods", "thresholds", "patients", "provenance"]
    assert len(pages) == len(COHORT)
    assert len(index.all("h1")) == len(index.all("main")) == 1
    assert len(index.all("caption")) == len(index.all("table")) == 5
    assert all(cell["scope"] in ("row", "col") for cell in index.all("th"))
    assert [p.name for p in sorted((tmp_path / "new" / "folder").rglob("*.html"))][:3] == [
        "index.html", "001.html", "002.html",
    ]  # fmt: skip
    for expected in (
        "0.933",
        "0.800\N{EN DASH}0.990",
        "11.0\N{NO-BREAK SPACE}% to 13.0\N{NO-BREAK SPACE}%",
        f"a, {words.NONE}",
    ):
        assert expected in index.text


def test_the_report_needs_nothing_else(tmp_path: Path) -> None:
    index, pages = written(tmp_path)
    for page in [index, *pages]:
        source = re.sub(r"base64,[^\"]*", "", page.source)
        assert not re.search(r"https?:|//|@import|url\(|<script|<link|\bon\w+=", source)
        policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_counts_are_told(tmp_path: Path) -> None:
    index, _ = written(tmp_path)
    for sentence in (
        "8 patients: 5 infected, 3 negative.",
        "4 of 5 infected patients are found, 1 is missed.",
        "2 of 3 negative patients are called negative, 1 is a false alarm.",
        "4 of 5 infected patients found",
        "Each patient by thresholds chosen on the others, in 3 folds.",
    ):
        assert sentence in index.text
    confusion = [row for row in index.rows if row[0] in ("Negative", "Low density", "High density")]
    assert confusion == [
        ["Negative", "2", "1", "0"], ["Low density", "1", "1", "1"], ["High density", "0", "0", "2"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (1, 1, "The one infected patient is found."),
        (0, 1, "The one infected patient is missed."),
        (5, 5, "All 5 infected patients are found."),
        (0, 5, "0 of 5 infected patients are found, 5 are missed."),
        (1, 3, "1 of 3 infected patients is found, 2 are missed."),
    ],
)
def test_grammar(part: int, whole: int, said: str) -> None:
    metrics = {"true_positive": part, "infected": whole}
    assert said in list(patients.sentences(metrics, COHORT, decided=True))


def test_ranking_in_words() -> None:
    def said(area: float, *bounds: float) -> str:
        return " ".join(patients.sentences({"auroc": area, "auroc_ci": bounds or None}, COHORT, decided=True))

    assert f"scores higher {words.percent(0.9)} of the time" in said(0.9)
    assert "do not overlap" in said(1.0, 1.0, 1.0)
    assert "do not show that it is better than guessing" in said(0.6, 0.4, 0.8)
    assert "worse than guessing" in said(0.2, 0.1, 0.3)
    assert "guessing." not in said(0.9, 0.8, 0.95)


def test_wrong_patients_come_first_then_by_score(tmp_path: Path) -> None:
    index, pages = written(tmp_path)
    order = ["N3", "L2", "L3", "H1", "H2", "L1", "N2", "N1"]
    assert [row[0] for row in listed(index)] == order
    assert [row[3] for row in listed(index)][:4] == ["false alarm", "missed", "other density", "found"]
    for page, name in zip(pages, order, strict=True):
        assert f"patient {order.index(name) + 1} of 8{name}" in page.text
    assert re.search(r"MissedL2False alarmsN3Other densityL3", index.text)


def test_without_a_threshold_of_high_density_infected_is_all_that_is_said(tmp_path: Path) -> None:
    cohort = [replace(p, diagnosis="low" if p.diagnosis == "high" else p.diagnosis) for p in COHORT]
    index, pages = written(tmp_path, patients=cohort, thresholds=THRESHOLDS | {"high": None})
    assert [row[0] for row in listed(index)] == ["N3", "L2", "H1", "H2", "L3", "L1", "N2", "N1"]
    assert listed(index)[2][1:4] == ["high density", "infected", "found"]
    assert "other density" not in index.text.lower()
    assert [row for row in index.rows if row[0].endswith("density")][:2] == [
        ["Low density", "1", "2"], ["High density", "0", "2"],
    ]  # fmt: skip
    kinds = [cell["class"] for cell in index.all("span") if cell.get("class") in ("right", "missed", "off")]
    assert kinds[:6] == [
        "right", "missed", "missed", "right", "off", "right",
    ]  # fmt: skip
    assert "Diagnosed: infected. The table says: high density." in pages[2].text


def test_without_diagnoses_the_report_says_less(tmp_path: Path) -> None:
    cohort = [replace(p, truth=None, diagnosis=None, fold=None) for p in COHORT]
    index, pages = written(tmp_path, patients=cohort, metrics={}, thresholds={}, provenance={})
    assert sections(index) == ["verdict", "separation", "patients"]
    assert "What they have is not known here" in index.text
    assert "There are no thresholds" in index.text
    assert index.all("dl") == []
    assert index.rows[0] == ["Patient", "Share of positive patches", "Patches"]
    assert "Not diagnosed, since there are no thresholds. The table says nothing of this patient." in pages[0].text


def test_some_diagnoses_and_some_scores_are_missing(tmp_path: Path) -> None:
    cohort = [*COHORT, patient("X", None, "low", 0.3), patient("Y", "low", None, float("nan"), 2)]
    metrics = numbers(COHORT) | {"auroc": float("nan"), "auroc_ci": [float("nan")] * 2, "specificity": None}
    strange = {"a": float("nan"), "b": {"c": [float("inf"), None]}}
    index, pages = written(tmp_path, patients=cohort, metrics=metrics, provenance=strange)
    assert "10 patients: 6 infected, 3 negative." in index.text
    assert "1 of them is without a diagnosis" in index.text
    assert "1 of 10 patients could not be scored." in index.text
    assert [row[0] for row in listed(index)][-1] == "Y"
    assert "2 most suspicious of 50" in pages[-1].text
    assert "not defined" in index.text


def test_one_patient_and_none(tmp_path: Path) -> None:
    index, pages = written(tmp_path / "one", patients=COHORT[3:4])
    assert "1 patient: 1 infected, 0 negative." in index.text
    assert len(pages) == 1
    assert [link["href"] for link in pages[0].all("a")] == ["../index.html"] * 2
    index, pages = written(tmp_path / "none", patients=[], metrics={}, thresholds={}, provenance={})
    assert sections(index) == ["verdict"]
    assert pages == []


def test_many_patients_are_quick_and_small(tmp_path: Path) -> None:
    base = [replace(p, name=f"{p.name}-{i}") for i in range(63) for p in COHORT][:500]
    cohort = [replace(p, score=min(1.0, p.score + i / 5000)) for i, p in enumerate(base)]
    start = time.monotonic()
    write_patients(tmp_path, **example(patients=cohort))
    assert time.monotonic() - start < 60  # about three seconds; the margin is for a busy machine
    assert (tmp_path / "index.html").stat().st_size < 1_000_000
    assert max(page.stat().st_size for page in (tmp_path / "patients").iterdir()) < 150_000
    assert (tmp_path / "patients" / "500.html").is_file()


def test_pages_of_an_earlier_report_are_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    write_patients(tmp_path, **example())
    write_patients(tmp_path, **example(patients=COHORT[:2]))
    assert [p.name for p in sorted((tmp_path / "patients").iterdir())] == ["001.html", "002.html"]
    (tmp_path / "patients" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write"):
        write_patients(tmp_path, **example())
    assert (tmp_path / "patients" / "notes.txt").read_text() == "mine"


EVIL = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(
    ["\"'><script>alert(1)</script>&amp;", "<" * 200, "N" * 200, "🔬 müller & sons", "../../etc/passwd", "{0} %s"]
)


@settings(deadline=None, max_examples=25)
@given(EVIL)
def test_every_text_is_escaped(tmp_path_factory: pytest.TempPathFactory, evil: str) -> None:
    def cohort(name: str, method: str) -> list[Patient]:
        shares = {method: 0.2, "other": 0.3}
        shown = [replace(patch, name=name) for patch in COHORT[2].most_suspicious()]
        return [replace(p, name=name, shares=shares, most_suspicious=lambda: shown) for p in COHORT]

    def report(name: str, folder: str) -> list[Outline]:
        thresholds = THRESHOLDS | {"patch": {name: {"median": 1.0, "folds": []}}}
        metrics = numbers(COHORT) | {"methods": {name: {"auroc": 0.5}}, "how": name, "score": name}
        given = {"patients": cohort(name, name), "thresholds": thresholds, "metrics": metrics, "title": name}
        path = tmp_path_factory.mktemp(folder)
        write_patients(path, **example(**given, provenance={name: {name: [name]}}))
        return [outline(path / "index.html"), *map(outline, sorted((path / "patients").iterdir()))]

    for page, plain in zip(report(evil, "evil"), report("plain", "plain"), strict=True):
        assert page.all("script") == []
        assert {name for name, _ in page.tags} == {name for name, _ in plain.tags}
        hrefs = {link["href"] for link in page.all("a")}
        assert hrefs == {link["href"] for link in plain.all("a")}


# ---- a patient's page


def test_a_page_shows_diagnosis_and_patches(tmp_path: Path) -> None:
    _, pages = written(tmp_path)
    wrong, several = pages[0], pages[5]
    assert "Diagnosed: low density. The table says: negative. This is a false alarm." in wrong.text
    assert "20.0\N{NO-BREAK SPACE}%" in wrong.text
    assert "thresholds are those of fold 3, chosen without this patient" in wrong.text
    assert f"infected above {words.percent(0.13)}" in wrong.text  # of its own fold, not the median
    assert len(wrong.all("img")) == 9
    assert "The 3 most suspicious of 50 patches" in wrong.text
    assert wrong.text.count("below the threshold") == 1
    assert len(several.all("img")) == 3 * patients.SHOWN
    assert [a["alt"] for a in wrong.all("img")][:3] == [f"N3/0.png: {p}, positive" for p in ("image", "map", "overlay")]
    links = [(link.get("rel"), link["href"]) for link in several.all("a")]
    assert links == [("prev", "005.html"), (None, "../index.html"), ("next", "007.html")] * 2
    assert "No patch is shown" in pages[-1].text


def test_patches_without_maps(tmp_path: Path) -> None:
    _, pages = written(tmp_path, patients=[patient("A", "low", "low", 0.4, 2, maps=False)], map_scale=None)
    assert len(pages[0].all("img")) == 2
    assert "one scale" not in pages[0].text
    assert {"class": "gallery alone"} in pages[0].all("ul")


def test_colours_are_of_one_scale_for_all(tmp_path: Path) -> None:
    both = [patient("A", "low", "low", 0.4, 1), patient("B", "low", "low", 0.3, 1)]
    _, pages = written(tmp_path, patients=both, map_scale=(0.0, 9.0))
    assert all("9one scale for the maps of all patients" in page.text for page in pages)


def test_scores_of_several_methods(tmp_path: Path) -> None:
    both = patient("A", "low", "low", 0.4, shares={"stain_ae": 0.3, "patch_cnn": float("nan")}, fold=7)
    one = patient("N", "negative", "negative", 0.02, shares={"patch_cnn": 0.1})
    index, pages = written(tmp_path / "shares", patients=[both, one])
    head = next(row for row in index.rows if row[0] == "Patient")
    assert head[4:7] == ["Share of positive patches", "stain_ae", "patch_cnn"]
    assert listed(index)[0][4:7] == [words.percent(0.4), words.percent(0.3), words.NONE]
    assert ["patch_cnn", words.NONE, "0.61"] in pages[0].rows
    assert "medians over the folds; this patient was diagnosed in fold 8" in pages[0].text
    clash = patient("A", "low", "low", 0.4, shares={"Patches": 0.3, "Fold": 0.2}, fold=7)
    index, _ = written(tmp_path / "clash", patients=[clash, clash])
    assert listed(index)[0][5:] == [words.percent(0.3), words.percent(0.2), "50", "8"]
    scores = example(patients=[replace(both, score=-2.5), COHORT[0]])
    scores["metrics"]["score"] = "mean of both, standardised"
    index, pages = written(tmp_path / "scores", **scores)
    assert "-2.5" in listed(index)[1]
    assert "Mean of both, standardised-2.550 patches scored" in pages[1].text
