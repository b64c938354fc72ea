"""A cohort through two tiny models: figures, tables, thresholds, pages; and what becomes of all that in a bundle."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from normscan.cli.diagnose import describe, parse_rule
from normscan.data.histology import read_histology
from normscan.deploy.export import export
from normscan.deploy.session import load
from normscan.errors import InputError, UsageError
from normscan.files import sha256
from normscan.report.compare import compare
from normscan.report.diagnose import diagnose, is_diagnosis
from normscan.report.evaluate import evaluate
from normscan.train.folder import Run

MODELS = ("stain_ae", "patch_cnn")


@pytest.fixture(scope="module")
def diagnosed(models: list[Path], cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnosed") / "report"
    diagnose(models, cohort, folder)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_only_new_patients_are_diagnosed(diagnosed: Path, models: list[Path], cohort: Path) -> None:
    rows = table(diagnosed / "scores_patients.csv")
    whole = read_histology(cohort)
    hashes = {digest for model in models for digest in Run.open(model).seen()}
    seen = {r.group for r in whole.records() if sha256(r.path) in hashes}
    assert {row["patient"] for row in rows} == set(whole.patients) - seen
    assert seen
    assert Counter(row["fold"] for row in rows).keys() == {str(i) for i in range(1, 9)}
    assert {row["density"] for row in rows} == {"negative", "low", "high"}
    for row in rows:
        assert float(row["score"]) == pytest.approx((float(row["stain_ae"]) + float(row["patch_cnn"])) / 2)


def test_figures_tables_and_pages_agree(diagnosed: Path) -> None:
    found = json.loads((diagnosed / "metrics.json").read_text())
    rows = table(diagnosed / "scores_patients.csv")
    assert found["patients"] == len(rows) == found["infected"] + found["negative"]
    called = [(row["density"] != "negative", row["diagnosis"] != "negative") for row in rows]
    assert found["true_positive"] == called.count((True, True))
    assert found["true_negative"] == called.count((False, False))
    assert set(found["methods"]) == set(found["patches"]) == set(MODELS)
    assert sum(sum(row.values()) for row in found["confusion"].values()) == len(rows)
    pages = sorted((diagnosed / "patients").iterdir())
    assert len(pages) == len(rows)
    index = (diagnosed / "index.html").read_text()
    assert all(f"patients/{page.name}" in index for page in pages)
    assert "thresholds that the others chose, in 8 folds" in index
    assert any("<img" in page.read_text() for page in pages)
    assert "patient AUROC" in describe(found, diagnosed)
    patches = table(diagnosed / "scores.csv")
    assert {row["label"] for row in patches} == {"", "0", "1"}
    assert is_diagnosis(diagnosed)


def test_a_second_time_gives_the_same(diagnosed: Path, models: list[Path], cohort: Path, tmp_path: Path) -> None:
    diagnose(models, cohort, tmp_path / "again", batch_size=3)
    one, other = (table(folder / "scores_patients.csv") for folder in (diagnosed, tmp_path / "again"))
    assert [r["diagnosis"] for r in one] == [r["diagnosis"] for r in other]


def test_thresholds_travel_in_a_bundle(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    """Chosen for one model, exported with it, and used by `score`'s session; refused for others."""
    diagnose([models[0]], cohort, tmp_path / "report")
    file = tmp_path / "report" / "thresholds.json"
    bundle = export(models[0], tmp_path / "ae.normscan", thresholds=file)
    group = bundle.spec.group
    assert group is not None
    kept = json.loads(file.read_text())
    assert group.pool == {"fraction": kept["patch"]["stain_ae"]["median"]}
    assert (group.positive, group.high) == (kept["positive"]["median"], kept["high"]["median"])
    assert load(bundle.folder).identity == load(models[0]).identity
    with pytest.raises(InputError, match="the thresholds are of another model"):
        export(models[1], tmp_path / "cnn.normscan", thresholds=file)
    assert not (tmp_path / "cnn.normscan").exists()


def test_thresholds_of_before_are_used_on_new_patients(models: list[Path], tmp_path: Path, cohort: Path) -> None:
    from normscan.data.synthetic_histology import write_cohort

    diagnose([models[1]], cohort, tmp_path / "report")
    file = tmp_path / "report" / "thresholds.json"
    with pytest.raises(InputError, match="all 32 patients of the cohort have trained the model or chosen"):
        diagnose([models[1]], cohort, tmp_path / "again", thresholds=file)
    write_cohort(tmp_path / "new", seed=6, patients=8, patches=4, annotated=0, size=64)
    shutil.copytree(models[1], tmp_path / "other-name")
    found = diagnose([tmp_path / "other-name"], tmp_path / "new", tmp_path / "second", thresholds=file)
    assert found["patients"] == 8
    assert (
        found["thresholds"]["patch"]["patch_cnn"]["median"]
        == json.loads(file.read_text())["patch"]["patch_cnn"]["median"]
    )
    assert {row["fold"] for row in table(tmp_path / "second" / "scores_patients.csv")} == {""}
    assert "chosen before, on" in (tmp_path / "second" / "index.html").read_text()
    with pytest.raises(UsageError, match="the thresholds are of patch_cnn, and these are other models"):
        diagnose([models[0]], tmp_path / "new", tmp_path / "third", thresholds=file)


def test_patches_are_evaluated_by_patient(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    found = evaluate(models[1], cohort, tmp_path / "evaluation", baselines=True)
    new = [r for r in read_histology(cohort).annotated if sha256(r.path)[:16] not in load(models[1]).seen]
    assert found["counts"]["normal"] + found["counts"]["abnormal"] <= len(new)
    assert found["image_auroc_ci_method"] == "grouped_bootstrap"
    assert set(found["baselines"]) == {"mean_brightness", "colour_gaussian", "random_network"}
    compared = compare((models[0], models[1]), cohort, tmp_path / "comparison")
    assert {side["name"] for side in compared["runs"]} == set(MODELS)


@pytest.mark.parametrize("rule", ["max", "mean", "topk:0.2"])
def test_other_rules(rule: str, models: list[Path], cohort: Path, tmp_path: Path) -> None:
    found = diagnose([models[1]], cohort, tmp_path / "report", rule=parse_rule(rule))
    assert not found["thresholds"]["patch"]
    assert found["auroc"] is not None


def test_noisy_or_is_of_probabilities(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    assert diagnose([models[1]], cohort, tmp_path / "report", rule="noisy_or")["auroc"] is not None


def test_bad_rules() -> None:
    for text in ("topk", "topk:0", "topk:2", "topk:x", "median", ""):
        with pytest.raises(UsageError, match="expected fraction, max"):
            parse_rule(text)


def test_two_models_of_one_name(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two models are called stain_ae"):
        diagnose([models[0], models[0]], cohort, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_patch_that_cannot_be_read(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    """A figure over the other patches would flatter; nothing half-written stays."""
    broken = Path(shutil.copytree(cohort, tmp_path / "cohort"))
    diagnose(models, cohort, tmp_path / "first")
    new = {row["patient"] for row in table(tmp_path / "first" / "scores_patients.csv")}
    victim = next(r.path for r in read_histology(broken).cropped if r.group in new)
    victim.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InputError, match=victim.name):
        diagnose(models, broken, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_foreign_folder_is_not_replaced(models: list[Path], cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="exists"):
        diagnose(models, cohort, tmp_path / "report", force=True)
    assert (tmp_path / "report" / "mine.txt").read_text() == "x"


def test_patients_that_training_never_sees(models: list[Path]) -> None:
    """Both families keep the same patients for test: the split is of patients and seed alone."""
    tests = []
    for model in models:
        rows = table(model / "splits.csv")
        tests.append({row["file"].split("/")[1] for row in rows if row["split"] == "test"})
    assert tests[0] == tests[1]
