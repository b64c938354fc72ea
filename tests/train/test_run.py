"""What a run may see, what chooses its checkpoint and its threshold, and when it stops."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from normscan.data.read import read_image, write_image
from normscan.deploy.session import load
from normscan.errors import ConfigError, ImageError, InputError
from normscan.families import family
from normscan.train.fit import with_scales
from normscan.train.folder import Run
from normscan.train.run import independent, train

TINY = family("ocad").tiny


def weights(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["files"]["network.safetensors"])


def test_test_pictures_and_abnormal_ones_change_nothing(run: Path, skin: Path, tmp_path: Path) -> None:
    """The sources chose the checkpoint on the test set, and trained on the abnormal folder too."""
    data = tmp_path / "data"
    shutil.copytree(skin / "train", data / "train")
    shutil.copytree(skin / "test" / "abnormal", data / "train" / "abnormal")
    train("ocad", data, tmp_path / "run", preset="paper", overrides=TINY)
    assert weights(tmp_path / "run") == weights(run)


def test_a_run_validates_with_its_maker(run: Path, skin: Path, tmp_path: Path) -> None:
    train("ocad", skin, tmp_path / "run", preset="paper", overrides={**TINY, "plant": "fpi"})
    usual, other = (json.loads((folder / "manifest.json").read_text()) for folder in (run, tmp_path / "run"))
    assert usual["validation"]["separation"] != other["validation"]["separation"]


def test_the_parts_are_disjoint(run: Path) -> None:
    with (run / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"train", "validation", "calibration", "test"}
    assert {row["label"] for row in rows if row["split"] != "test"} == {"0"}
    assert len({row["sha256"] for row in rows}) == len(rows) == 60


def test_the_threshold_is_the_order_statistic_of_calibration_scores(run: Path, skin: Path) -> None:
    """In units of the score, and of nothing else."""
    with (run / "splits.csv").open() as file:
        paths = [skin / row["file"] for row in csv.DictReader(file) if row["split"] == "calibration"]
    session = load(run)
    scores = sorted(result.score for result in session.score(paths))
    calibration = session.scorer.spec.calibration
    assert calibration is not None
    assert calibration.n == len(paths) == 19
    assert calibration.threshold == pytest.approx(scores[-1], abs=1e-6 * session.spread)
    assert session.spread == pytest.approx(float(np.std(scores, ddof=1)), rel=1e-6)


def test_scales_are_the_spread_of_validation_normals(run: Path, skin: Path) -> None:
    with (run / "validation.csv").open() as file:
        paths = [skin / row["file"] for row in csv.DictReader(file)]
    found = load(run).score(paths)
    spread = np.std([result.terms for result in found], axis=0, ddof=1)
    np.testing.assert_allclose([term.scale for term in Run.open(run).spec.terms], spread, rtol=1e-4)


def test_it_stops_when_nothing_is_gained(skin: Path, tmp_path: Path) -> None:
    changes = {**TINY, "epochs": 9, "patience": 2, "halve_after": 1, "learning_rate": 1e-30}
    train("ocad", skin, tmp_path / "run", preset="paper", overrides=changes)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all({"loss", "images_per_second", "validation_separation"} <= set(row) for row in rows)


def test_too_few_calibration_normals_give_no_threshold(skin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "train" / "normal"
    data.mkdir(parents=True)
    for path in sorted((skin / "train" / "normal").iterdir())[:20]:
        shutil.copy(path, data)
    run = train("ocad", tmp_path / "data", tmp_path / "run", preset="paper", overrides={**TINY, "epochs": 1})
    assert run.spec.calibration is None
    result = load(tmp_path / "run").score(data / "0000.png")
    assert (result.decision, result.threshold) == (None, None)
    assert np.isfinite(result.score)


def test_a_bad_training_picture_stops_training_and_is_named(skin: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(skin, tmp_path / "data"))
    (data / "train" / "normal" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ImageError, match=r"bad\.png"):
        train("ocad", data, tmp_path / "run", preset="paper", overrides=TINY)


def test_too_few_pictures_are_told(skin: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "train" / "normal"
    data.mkdir(parents=True)
    shutil.copy(skin / "train" / "normal" / "0000.png", data)
    with pytest.raises(InputError, match="expected at least 3"):
        train("ocad", tmp_path / "data", tmp_path / "run", preset="paper", overrides=TINY)
    assert not (tmp_path / "run").exists()


def test_a_term_that_does_not_vary_is_told() -> None:
    spec = family("ocad").spec(family("ocad").config.parse(TINY))
    with pytest.raises(InputError, match="all alike"):
        with_scales(spec, np.repeat([[0.1, 0.2, 3.0]], 5, axis=0))
    assert [term.scale for term in with_scales(spec, np.array([[1.0, 2, 3], [2, 4, 7]])).terms] == pytest.approx(
        [np.sqrt(0.5), np.sqrt(2), np.sqrt(8)]
    )


def test_a_group_counts_once(skin: Path, tmp_path: Path) -> None:
    """Several pictures of a patient are one calibration unit, by the highest score."""
    scores, unit = independent(np.array([1.0, 5.0, 2.0, 3.0]), ["a", "a", None, "b"])
    assert (sorted(scores), unit) == ([2.0, 3.0, 5.0], "group")
    scores, unit = independent(np.array([1.0, 5.0]), ["a", None])
    assert (list(scores), unit) == ([1.0, 5.0], "image")
    data = Path(shutil.copytree(skin, tmp_path / "data"))
    names = sorted((data / "train" / "normal").iterdir())
    rows = [f"train/normal/{path.name},p{i // 2}" for i, path in enumerate(names)]
    others = [p.relative_to(data).as_posix() for p in sorted((data / "test").rglob("*.png"))]
    rows += [f"{name},t{i}" for i, name in enumerate(others)]
    (data / "groups.csv").write_text("\n".join(["file,group", *rows, ""]))
    run = train("ocad", data, tmp_path / "run", preset="paper", overrides={**TINY, "epochs": 1})
    assert run.spec.calibration is None  # 19 pictures, but about 10 patients
    assert "p1" not in (tmp_path / "run" / "splits.csv").read_text()


def test_grey_and_colour_pictures_train_together(skin: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(skin / "train" / "normal", tmp_path / "data" / "train" / "normal"))
    for i, path in enumerate(sorted(data.iterdir())):
        pixels = read_image(path)
        if i % 3 == 1:
            write_image(path, pixels[:, :, 0])
        elif i % 3 == 2:
            write_image(path, pixels.astype(np.uint16) * 257)
    run = train("ocad", tmp_path / "data", tmp_path / "run", preset="paper", overrides={**TINY, "epochs": 1})
    assert run.spec.calibration is not None


def test_a_failed_start_keeps_the_old_run(run: Path, skin: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with pytest.raises(ConfigError):
        train("ocad", skin, copy, preset="paper", overrides={**TINY, "ssim_pool": "foo"}, force=True)
    assert Run.open(copy).manifest == Run.open(run).manifest


@pytest.mark.parametrize(
    ("name", "content"),
    [("manifest.json", "{}"), ("manifest.json", "[]"), ("manifest.json", "[" * 100_000), ("config.json", "[]")],
)
def test_a_damaged_run_is_named(run: Path, tmp_path: Path, name: str, content: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=name):
        Run.open(copy)


def test_a_run_stopped_at_its_very_start_resumes(run: Path, skin: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(run / "splits.csv", tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_text('{"steps": 1}\n{"ste')
    train("ocad", skin, tmp_path / "run", preset="paper", overrides=TINY, resume=True)
    assert weights(tmp_path / "run") == weights(run)
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") == 2
