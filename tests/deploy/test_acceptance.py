"""A lower precision is judged by decisions and ranking, refused with figures, and mended layer by layer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normscan.deploy import lowering
from normscan.deploy.acceptance import Acceptance, Truth
from normscan.deploy.bundle import Bundle
from normscan.deploy.export import export
from normscan.deploy.lowering import lowered
from normscan.deploy.precision import lowered_products
from normscan.deploy.session import load
from normscan.deploy.verify import verify
from normscan.errors import InputError, ParityError, UsageError
from normscan.scoring.calibrate import Calibration
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import Input, ScoringSpec, Term
from normscan.train.folder import Run
from normscan.train.run import validator_of

CALIBRATION = Calibration("order_statistic", 0.5, 100, 0.95, (0.9, 0.99))
SCORER = Scorer(
    ScoringSpec("test", Input(8, 8), (Term("value", ("score",), per="vector", scale=1.0),), calibration=CALIBRATION), {}
)


class Shifted:
    """Gives the mean of each picture, and moves some scores."""

    name = "shifted"
    device = "cpu"

    def __init__(self, **moved: float) -> None:
        self.moved = {int(index.removeprefix("at")): by for index, by in moved.items()}
        self.seen = 0

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        scores = x.mean(axis=(1, 2, 3))
        for i in range(len(x)):
            scores[i] += self.moved.get(self.seen + i, 0.0)
        self.seen += len(x)
        return {"score": scores[:, None].astype(np.float32)}

    def fingerprint(self) -> dict[str, str]:
        return {"engine": self.name}


def truth(normal: int = 10, abnormal: int = 10) -> Truth:
    """Scores 0.00, 0.01, ... of normals, all below 0.5; of abnormal ones from 0.60 on."""
    levels = [0.01 * i for i in range(normal)] + [0.6 + 0.01 * i for i in range(abnormal)]
    x = np.ones((len(levels), 3, 8, 8), np.float32) * np.array(levels, np.float32)[:, None, None, None]
    labels = np.array([0] * normal + [1] * abnormal)
    return Truth.of(Shifted(), SCORER, 0.1, lambda: [(x[:7], labels[:7]), (x[7:], labels[7:])])


def test_an_engine_that_agrees_is_accepted() -> None:
    found = truth().judge(Shifted(), SCORER, "fp16")
    assert found.passed
    assert (found.images, found.flips, found.auroc_difference, found.score_error) == (20, 0, 0.0, 0.0)
    assert "accepted on 20 labelled pictures: AUROC 1.0000, +0.0000" in found.explain()


def test_a_decision_that_differs_counts_against_it() -> None:
    found = truth().judge(Shifted(at9=0.45), SCORER, "int8")  # a normal at .09 goes above .5, no rank changes
    assert (found.flips, found.auroc_difference) == (1, 0.0)
    assert found.score_error == pytest.approx(4.5, rel=1e-5)
    assert not found.passed
    assert "REFUSED" in found.explain()
    many = truth(100, 100).judge(Shifted(at9=-0.05, at0=0.0), SCORER, "int8")
    assert many.flips == 0


def test_one_in_two_hundred_may_differ() -> None:
    figures = {"engine": "e", "precision": "int8", "auroc": 1.0, "auroc_difference_ci": (0.0, 0.0), "score_error": 0.1}
    for images, flips, difference, passed in (
        (200, 1, 0.0, True),
        (199, 1, 0.0, False),
        (400, 2, -0.005, True),
        (400, 0, 0.0051, False),
    ):
        assert Acceptance(images=images, flips=flips, auroc_difference=difference, **figures).passed == passed  # type: ignore[arg-type]


def test_ranking_is_paired() -> None:
    found = truth().judge(Shifted(at10=-0.6), SCORER, "int8")  # the lowest abnormal falls among the normals
    assert found.auroc_difference == pytest.approx(-0.095, abs=0.006)
    low, high = found.auroc_difference_ci
    assert low < found.auroc_difference < high


@pytest.mark.parametrize("count", [1, 6, 8, 10, 100])
def test_the_first_normals_are_those_with_their_scores(count: int) -> None:
    some = truth().normals(count)  # in batches of 7 and 13 pictures, 10 of them normal
    assert some.labels.tolist() == [0] * min(count, 10)
    np.testing.assert_array_equal(some.scored(Shifted(), SCORER), some.scores)


@pytest.fixture(scope="module")
def judged(run: Path) -> Truth:
    opened = Run.open(run)
    session = load(run)
    return Truth.of(session.engine, session.scorer, session.spread, validator_of(opened).examples)


def test_the_examples_are_those_of_the_validation(run: Path, judged: Truth) -> None:
    """The same normals with the same scores, and the planted anomalies whose AUROC the manifest has."""
    rows = [line.split(",") for line in (run / "validation.csv").read_text().splitlines()[1:]]
    spread = Run.open(run).manifest["spread"]
    np.testing.assert_allclose(judged.scores[: len(rows)], [float(s) for _, s in rows], atol=1e-3 * spread)
    found = judged.judge(load(run).engine, load(run).scorer, "fp32")
    assert found.auroc == pytest.approx(Run.open(run).manifest["validation"]["planted_auroc"], abs=1e-6)
    assert found.score_error < 1e-3


def test_half_precision_is_accepted_and_travels(run: Path, skin: Path, tmp_path: Path) -> None:
    # The tiny network is hardly trained and its scores are close together: what it errs by is a layer's share of them.
    bundle = export(run, tmp_path / "half.normscan", precision="fp16", auto=True)
    assert bundle.precision == "fp16"
    accepted = bundle.manifest["precision"]["accepted"]
    assert accepted["passed"]
    assert accepted["engine"] == "onnxruntime"
    found = verify(bundle.folder, data=skin, run=run, engines=["onnxruntime"])
    assert [type(c).__name__ for c in found] == ["Comparison", "Acceptance"]
    (alone,) = verify(bundle.folder)
    assert alone.engine == "onnxruntime"
    with pytest.raises(InputError, match="no labelled test pictures of both kinds"):
        verify(bundle.folder, data=skin / "train", run=run)


def test_a_refused_precision_names_layers_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acceptance, "passed", property(lambda self: self.score_error < 1e-9))
    with pytest.raises(ParityError, match=r"REFUSED on 70 .* --keep NAME each, or leave it to --auto: node_"):
        export(run, tmp_path / "x.normscan", precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_auto_keeps_the_layers_that_err_most(exported: Path, judged: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doubles their number until the rest is accepted."""
    bundle = Bundle.open(exported)
    every = lowered_products(bundle.model, "fp16")
    limit = 0.25 * lowered_error(bundle, judged)
    monkeypatch.setattr(Acceptance, "passed", property(lambda self: self.score_error < limit))
    found = lowered(bundle, "fp16", judged, engine="onnxruntime", calibration=list, auto=True)
    assert 0 < len(found.kept) < len(every)
    assert set(found.kept) < set(every)
    assert found.acceptance.score_error < limit


def lowered_error(bundle: Bundle, judged: Truth) -> float:
    model = lowering.at_precision(bundle.model, "fp16")
    return judged.judge(lowering.opened(bundle, model, "onnxruntime"), bundle.scorer(), "fp16").score_error


def test_auto_gives_up_where_nothing_helps(exported: Path, judged: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acceptance, "passed", property(lambda self: False))
    with pytest.raises(ParityError, match="with every layer in float32 still"):
        lowered(Bundle.open(exported), "fp16", judged, engine="onnxruntime", calibration=list, auto=True)


def test_bfloat16_runs_on_the_engine_that_took_it(
    run: Path, skin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acceptance, "passed", property(lambda self: self.score_error < 10))
    bundle = export(run, tmp_path / "b.normscan", precision="bf16")
    assert bundle.engine == "openvino"
    session = load(bundle.folder)
    assert session.engine.name == "openvino"
    assert len(session.score(sorted((skin / "test").rglob("*.png")))) == 12
    assert [c.engine for c in verify(bundle.folder)] == ["openvino"]


def test_an_unknown_precision_is_told(run: Path) -> None:
    with pytest.raises(UsageError, match="precision is 'fp8', expected fp32, fp16, bf16, int8"):
        export(run, precision="fp8")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "openvino"}, "engine 'openvino': for a lower precision, and it is fp32"),
        ({"keep": ["node_conv2d"]}, r"keep \['node_conv2d'\]: for a lower precision"),
        ({"auto": True}, "auto: for a lower precision"),
        ({"precision": "fp16", "engine": "tensorrt"}, "engine is 'tensorrt', expected onnxruntime or openvino"),
    ],
)
def test_options_that_would_be_ignored_are_told(run: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export(run, tmp_path / "x.normscan", **given)
    assert list(tmp_path.iterdir()) == []


def test_too_few_validation_pictures_are_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Run.records
    monkeypatch.setattr(Run, "records", lambda self, part: records(self, part)[:1])
    with pytest.raises(InputError, match=r"1 normal and 64 abnormal validation pictures; .* larger --set validation"):
        export(run, tmp_path / "x.normscan", precision="fp16")


def test_values_beyond_half_are_a_refusal() -> None:
    found = truth().judge(Shifted(at3=float("nan")), SCORER, "fp16")
    assert not found.passed
    assert found.score_error == float("inf")
    assert "REFUSED" in found.explain()


def test_the_card_tells_the_precision(run: Path, tmp_path: Path) -> None:
    bundle = export(run, tmp_path / "half.normscan", precision="fp16", auto=True)
    card = bundle.files["card.md"].decode()
    assert "## Precision" in card
    assert "onnxruntime in fp16 is accepted on 70 labelled pictures" in card


def test_validation_pictures_that_are_gone_are_told(run: Path, tmp_path: Path) -> None:
    opened = Run.open(run)
    moved = replace(opened, manifest={**opened.manifest, "data": {**opened.manifest["data"], "folder": str(tmp_path)}})
    with pytest.raises(InputError, match=r"not found; .* was trained on it, and its validation part is needed"):
        moved.records("validation")


def test_an_engine_that_is_not_here_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = export(run, tmp_path / "half.normscan", precision="fp16", auto=True)
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    assert manifest["precision"]["accepted"]["engine"] == "onnxruntime"
    monkeypatch.setattr("normscan.deploy.verify.available_engines", lambda: {"openvino": True, "onnxruntime": False})
    with pytest.raises(UsageError, match="was accepted on onnxruntime, which is not installed here"):
        verify(bundle.folder)
