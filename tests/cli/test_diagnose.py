"""`normscan diagnose`, and what its thresholds do in `export` and `score`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from normscan.cli import demo
from normscan.data.histology import patient_of, read_histology

Call = Callable[..., tuple[int, str, str]]


def test_from_patches_to_patients(call: Call, models: list[Path], cohort: Path, tmp_path: Path) -> None:
    code, out, err = call("diagnose", *models, "-i", cohort, "-o", tmp_path / "report")
    assert code == 0, err
    assert "thresholds from other folds" in out
    assert "AUROC of stain_ae" in out
    assert "negative  called negative" in out
    code, out, _ = call("diagnose", *models, "-i", cohort, "-o", tmp_path / "report", "--json")
    assert json.loads(out)["patients"] == len(list((tmp_path / "report" / "patients").iterdir()))


def test_a_bundle_with_thresholds_diagnoses_folders(
    call: Call, models: list[Path], cohort: Path, tmp_path: Path
) -> None:
    assert call("diagnose", models[0], "-i", cohort, "-o", tmp_path / "report")[0] == 0
    thresholds = tmp_path / "report" / "thresholds.json"
    assert call("export", models[0], "-o", tmp_path / "ae.normscan", "--thresholds", thresholds)[0] == 0
    code, out, err = call("score", tmp_path / "ae.normscan", "-i", cohort / "CroppedPatches", "-o", tmp_path / "scores")
    assert code == 0, err
    assert "32 patients (folders)" in out
    with (tmp_path / "scores" / "scores_patients.csv").open() as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    with (tmp_path / "report" / "scores_patients.csv").open() as file:
        diagnosed = {row["patient"]: row for row in csv.DictReader(file)}
    kept = json.loads(thresholds.read_text())
    with (tmp_path / "report" / "scores.csv").open() as file:
        patches = [row for row in csv.DictReader(file) if not row["label"]]
    for name in diagnosed:
        scores = [float(row["stain_ae"]) for row in patches if row["patient"] == name]
        share = sum(score > kept["patch"]["stain_ae"]["median"] for score in scores) / len(scores)
        assert float(rows[name]["score"]) == pytest.approx(share, abs=1 / len(scores) + 1e-9)
        assert rows[name]["diagnosis"] in ("negative", "low", "high")
        assert int(rows[name]["pictures"]) == len(scores)


def test_names_of_folders_are_patients() -> None:
    assert [patient_of(name) for name in ("B22-01_0", "B22-01_1", "B22-01", "B22_2", "_0", "a_0_1")] == [
        "B22-01",
        "B22-01",
        "B22-01",
        "B22_2",
        "_0",
        "a_0",
    ]


def test_a_cohort_with_names_of_its_own(call: Call, models: list[Path], cohort: Path, tmp_path: Path) -> None:
    """cohort.json holds for every verb."""
    other = Path(shutil.copytree(cohort, tmp_path / "cohort"))
    table = other / "PatientDiagnosis.csv"
    table.write_text(table.read_text().replace("CODI", "ID").replace("NEGATIVA", "none"))
    assert call("inspect", other)[0] == 3
    names = other / "cohort.json"
    names.write_text('{"patient": "ID", "negative": "none"}')
    assert read_histology(other).patients == read_histology(cohort).patients
    code, out, _ = call("inspect", other)
    assert code == 0
    assert "negative 16" in out
    for text, said in (
        ('{"patien": "ID"}', "did you mean 'patient'?"),
        ('{"patient": 3}', "expected names and texts"),
        ("[]", "expected names and texts"),
        ("{", "not valid JSON"),
        ('{"zzz": "ID"}', "expected some of cropped"),
    ):
        names.write_text(text)
        code, _, err = call("diagnose", models[0], "-i", other, "-o", tmp_path / "report")
        assert (code, said in err) == (3, True), err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--rule", "median"), 2, "expected fraction, max"),
        (("--rule", "max", "--thresholds", "x.json"), 2, "exclude each other"),
        (("--thresholds", "x.json"), 3, "x.json cannot be read"),
    ],
)
def test_bad_options(
    options: tuple[str, ...], code: int, said: str, call: Call, models: list[Path], cohort: Path, tmp_path: Path
) -> None:
    found, _, err = call("diagnose", models[0], "-i", cohort, "-o", tmp_path / "report", *options)
    assert (found, said in err) == (code, True), err
    assert not (tmp_path / "report").exists()


def test_no_cohort(call: Call, models: list[Path], skin: Path, tmp_path: Path) -> None:
    code, _, err = call("diagnose", models[0], "-i", skin, "-o", tmp_path / "report")
    assert code == 3
    assert "PatientDiagnosis.csv: no such table" in err


def test_the_demo_of_patients(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "PATIENTS", {"patients": 16, "patches": 3, "annotated": 8, "size": 64})
    monkeypatch.setattr(demo, "HISTOLOGY", {"stain_ae": 1, "patch_cnn": 1})
    for _ in range(2):  # the second replaces the first
        code, out, err = call("demo", "--histology", "-o", tmp_path / "demo", "--force")
        assert code == 0, err
        assert "8 patients, 4 infected" in out
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"index.html", "patients", "scores_patients.csv", "stain_ae.normscan", "patch_cnn.normscan"} <= names
    assert call("demo", "--histology", "--family", "ocad", "-o", tmp_path / "other")[0] == 2
