"""Thresholds that patients choose, and diagnoses that flatter nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from normscan.data.histology import Density
from normscan.errors import InputError
from normscan.scoring import diagnosis
from normscan.scoring import thresholds as module
from normscan.scoring.diagnosis import Evidence, choose, cross_diagnose, diagnose, summarise
from normscan.scoring.thresholds import (
    Threshold,
    ThresholdFile,
    Thresholds,
    choose_threshold,
    folds_of,
    nearest_point,
)

CYCLE: tuple[Density, ...] = ("negative", "low", "negative", "high")
SHARES = {"negative": 0.02, "low": 0.3, "high": 0.8}


def cohort(patients: int = 24, patches: int = 40, *, seed: int = 0) -> tuple[Evidence, dict[str, Density]]:
    """Positive patches score about 3, others about 0; a patient's share of positive ones goes with the density."""
    rng = np.random.default_rng(seed)
    densities = {f"P{i:02}": CYCLE[i % 4] for i in range(patients)}
    scores, names, annotated, labels, looked = [], [], [], [], []
    for name, density in densities.items():
        hit = rng.random(patches) < SHARES[density]
        scores.append(rng.normal(3.0 * hit))
        names += [name] * patches
        shown = rng.random(10) < (0.5 if density != "negative" else 0.0)
        annotated.append(rng.normal(3.0 * shown))
        labels += shown.astype(int).tolist()
        looked += [name] * 10
    return Evidence(np.concatenate(scores), names, np.concatenate(annotated), labels, looked), densities


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=60).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_nearest_point_is_the_nearest(rows: list[tuple[int, int]]) -> None:
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], np.float64)
    threshold = nearest_point(labels, scores)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    called = scores > threshold
    found = np.hypot(called[labels == 0].mean(), 1 - called[labels == 1].mean())
    assert found == pytest.approx(np.hypot(false, 1 - true).min(), abs=1e-12)
    assert np.isfinite(threshold)


def test_nearest_point_lies_between_what_it_separates() -> None:
    assert nearest_point([0, 0, 1, 1], [1.0, 2.0, 4.0, 9.0]) == 3.0
    above = np.nextafter(1.0, 2.0)  # neighbours: no number lies between them
    assert 1.0 <= nearest_point([0, 1], [1.0, above]) < above


def test_the_median_is_kept_and_not_the_last_fold() -> None:
    """One fold's patients move its threshold far away; the order of folds must not matter."""
    labels = [0, 1] * 5
    patients = [f"P{i // 2}" for i in range(10)]
    scores = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 90.0, 100.0])
    folds = [[f"P{i}"] for i in range(5)]
    found = choose_threshold(labels, scores, patients, folds, "threshold")
    assert found.folds == (0.5, 0.5, 0.5, 0.5, 0.5)
    scores[:8] += np.arange(8) // 2  # now every fold's differs
    one = choose_threshold(labels, scores, patients, folds, "threshold")
    other = choose_threshold(labels, scores, patients, folds[::-1], "threshold")
    assert one.median == other.median == np.median(one.folds)
    assert one.folds[-1] != one.median


def test_a_fold_has_whole_patients_and_each_kind() -> None:
    _, densities = cohort(24)
    folds = folds_of(densities, 8)
    assert sorted(name for fold in folds for name in fold) == sorted(densities)
    assert len(folds) == 8
    for fold in folds:
        assert sum(densities[name] == "negative" for name in fold) in (1, 2)
    assert folds == folds_of(dict(reversed(list(densities.items()))), 8)
    assert folds != folds_of(densities, 8, seed=1)
    assert len(folds_of(densities, 100)) == 24
    with pytest.raises(InputError, match="found 1 patients"):
        folds_of({"P0": "low"}, 8)


def test_a_fold_leaves_out_whole_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    """What chooses a fold's threshold is every patch of all other patients, and none of its own."""
    evidence, densities = cohort(16)
    folds = folds_of(densities, 8)
    coded = np.array([float(name.removeprefix("P")) for name in evidence.annotated_patients])
    seen: list[list[float]] = []

    def record(labels: np.ndarray, scores: np.ndarray) -> float:
        seen.append(scores.tolist())
        return 0.0

    monkeypatch.setattr(module, "nearest_point", record)
    choose_threshold(evidence.labels, coded, evidence.annotated_patients, folds, "patch threshold")
    everyone = set(densities)
    for fold, scores in zip(folds, seen, strict=True):
        left = sorted(everyone - set(fold))
        assert scores == [float(name.removeprefix("P")) for name in left for _ in range(10)]


def test_diagnosis_end_to_end() -> None:
    evidence, densities = cohort(32)
    chosen = choose({"a": evidence}, densities, "fraction")
    assert 0.5 < chosen.patch["a"].median < 2.5
    assert chosen.high is not None
    assert chosen.positive.median < chosen.high.median
    found, folds = cross_diagnose({"a": evidence}, densities, "fraction")
    assert len(folds) == 8
    assert {d.fold for d in found.values()} == set(range(8))
    figures = summarise(found, densities)
    assert figures["patients"] == 32
    assert figures["auroc"] > 0.98
    assert figures["sensitivity"] >= 0.9
    assert sum(figures["confusion"]["high"].values()) == 8
    json.dumps(figures)


def test_a_patient_does_not_choose_their_own_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, densities = cohort(16)
    chose: list[set[str]] = []

    def record(given: dict[str, Evidence], *arguments: object, **options: object) -> Thresholds:
        chose.append({name for its in given.values() for name in (*its.patients, *its.annotated_patients)})
        return thresholds()

    monkeypatch.setattr(diagnosis, "choose", record)
    found, folds = cross_diagnose({"a": evidence}, densities, "fraction")
    assert len(folds) == len(chose) == 8
    for name, its in found.items():
        assert its.fold is not None
        assert name not in chose[its.fold]
        assert len(chose[its.fold]) == 14


def test_outer_folds_use_their_own_thresholds() -> None:
    evidence, densities = cohort(24)
    found, folds = cross_diagnose({"a": evidence}, densities, "fraction")
    name, its = next(iter(found.items()))
    again = diagnose({"a": evidence.of({name})}, folds[its.fold or 0])
    assert again[name].density == its.density
    assert again[name].score == its.score


def test_several_methods_count_alike() -> None:
    evidence, densities = cohort(24)
    noise = replace(evidence, scores=np.zeros(len(evidence.scores)))
    found, _ = cross_diagnose({"a": evidence, "b": noise}, densities, "fraction")
    for its in found.values():
        assert its.score == pytest.approx((its.shares["a"] + its.shares["b"]) / 2)
    assert set(summarise(found, densities)["methods"]) == {"a", "b"}


@pytest.mark.parametrize("rule", ["max", "mean", {"topk": 0.1}])
def test_other_rules_need_no_annotated_patch(rule: str | dict[str, float]) -> None:
    evidence, densities = cohort(24)
    bare = Evidence(evidence.scores, evidence.patients)
    found, folds = cross_diagnose({"a": bare}, densities, rule)
    assert not folds[0].patch
    assert summarise(found, densities)["auroc"] > 0.7


def test_what_is_missing_is_said() -> None:
    evidence, densities = cohort(16)
    with pytest.raises(InputError, match="no annotated patches for a patch threshold; take another rule"):
        choose({"a": Evidence(evidence.scores, evidence.patients)}, densities, "fraction")
    healthy = {name for name, density in densities.items() if density == "negative"}
    with pytest.raises(InputError, match=r"no patch threshold of a can be chosen: \d+ patients below it and 0 above"):
        choose({"a": evidence.of(healthy)}, densities, "fraction")
    with pytest.raises(InputError, match="no patient threshold can be chosen: 8 patients below it and 0 above"):
        choose({"a": evidence.of(healthy)}, densities, "max")


def test_one_density_alone_gives_no_second_threshold() -> None:
    evidence, densities = cohort(16)
    some = {name for name, density in densities.items() if density != "low"}
    chosen = choose({"a": evidence.of(some)}, densities, "fraction")
    assert chosen.high is None
    assert {d.density for d in diagnose({"a": evidence.of(some)}, chosen).values()} == {"negative", "positive"}


def thresholds() -> Thresholds:
    return Thresholds("fraction", {"a": Threshold(0.5, (0.4, 0.6))}, Threshold(0.1, (0.1,)), Threshold(0.4, (0.4,)))


def test_the_file_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = ThresholdFile(thresholds(), {"a": "0" * 64}, 30, ["00ff"])
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(kept.to_dict()))
    assert ThresholdFile.read(path) == kept
    group = kept.group(path, "0" * 64)
    assert (group.pool, group.positive, group.high) == ({"fraction": 0.5}, 0.1, 0.4)
    with pytest.raises(InputError, match=r"thresholds\.json: the thresholds are of another model"):
        kept.group(path, "1" * 64)
    with pytest.raises(InputError, match="of a and b together"):
        replace(kept, models={"a": "0" * 64, "b": "1" * 64}).group(path, "0" * 64)


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": 2}', "{", '{"schema": 1, "rule": 3, "patch": []}'])
def test_no_thresholds_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"thresholds\.json"):
        ThresholdFile.read(path)
