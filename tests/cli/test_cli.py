"""The verbs, as a person or a program uses them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from bundles import seal
from normscan.families import names

VERBS = ["train", "score", "evaluate", "export", "verify", "bench", "inspect", "doctor", "demo"]
Call = Callable[..., tuple[int, str, str]]


def data(out: str) -> Any:
    return json.loads(out)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(call: Call, verb: str) -> None:
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert "--json" in out


def test_help_lists_the_verbs_and_the_limits(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert "medical device" in " ".join(out.split())


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "normscan", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("Usage: normscan")


def test_the_installed_command_is_light() -> None:
    code = "import sys\nfrom normscan.cli.__main__ import main\nsys.argv = ['normscan', '--help']\ntry:\n    main()\n"
    code += (
        "except SystemExit:\n    print(sorted({'torch', 'cv2', 'onnxruntime', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["scor"], "scor"),
        (["score"], "model"),
        (["train", "ocda", "-i", "x", "-o", "y"], "did you mean 'ocad'"),
        (["train", "ocad", "-i", "x", "-o", "y", "--preset", "huge"], "paper, small"),
        (["train", "ocad", "-i", "x", "-o", "y", "--set", "epochs"], "name=value"),
        (["train", "ocad", "-i", "x", "-o", "y", "--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_usage_errors(call: Call, arguments: list[str], text: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert text in err


def test_a_wrong_field_names_the_nearest(call: Call, tmp_path: Path) -> None:
    code, out, err = call("train", "ocad", "-i", "x", "-o", tmp_path / "r", "--set", "epoch=3", "--json")
    assert code == 3
    assert "did you mean 'epochs'" in err
    assert data(out)["exit_code"] == 3
    assert not (tmp_path / "r").exists()


def test_score_writes_a_row_for_each_picture(call: Call, bundle: Path, skin: Path, tmp_path: Path) -> None:
    code, out, err = call("score", bundle, "-i", skin / "test", "-o", tmp_path / "s", "--maps", "--json")
    assert code == 0
    assert data(out)["images"] == 12
    assert "engine: onnxruntime" in err
    with (tmp_path / "s" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["decision"] for row in rows} <= {"normal", "anomalous"}
    assert all((row["decision"] == "anomalous") == (float(row["score"]) > float(row["threshold"])) for row in rows)
    assert all((tmp_path / "s" / "maps" / f"{row['file']}.png").is_file() for row in rows)
    code, _, err = call("score", bundle, "-i", skin / "test", "-o", tmp_path / "s")
    assert code == 2
    assert "--force" in err


def test_score_to_stdout(call: Call, bundle: Path, skin: Path) -> None:
    code, out, _ = call("score", bundle, "-i", skin / "test" / "normal")
    assert code == 0
    assert out.splitlines()[0] == "file,score,decision,threshold,error"
    assert len(out.splitlines()) == 7


def test_evaluate_and_its_files(call: Call, bundle: Path, skin: Path, tmp_path: Path) -> None:
    code, out, _ = call("evaluate", bundle, "-i", skin, "-o", tmp_path / "e", "--baselines", "--json")
    assert code == 0
    found = data(out)
    wanted = {"image_auroc", "image_auroc_ci", "auprc", "prevalence", "sensitivity", "specificity", "specificity_ci"}
    wanted |= {"threshold", "target_specificity", "counts", "pixel_auroc", "aupro", "baselines", "engine"}
    assert wanted <= set(found)
    assert found["counts"]["normal"] == found["counts"]["abnormal"] == 6
    assert set(found["baselines"]) == {"mean_brightness", "colour_gaussian", "random_network"}
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == found
    pictures = {"overview.png", "restorations.png"}
    assert {p.name for p in (tmp_path / "e").iterdir()} == {"index.html", "metrics.json", "scores.csv"} | pictures
    code, out, _ = call("evaluate", bundle, "-i", skin, "-o", tmp_path / "e")
    assert code == 0
    assert "95 % prediction interval" in out


def test_evaluate_a_run_remembers_its_data(call: Call, run: Path, bundle: Path, tmp_path: Path) -> None:
    code, out, _ = call("evaluate", run, "-o", tmp_path / "e", "--json")
    assert code == 0
    assert data(out)["engine"]["engine"] == "torch"
    code, _, err = call("evaluate", bundle)
    assert code == 2
    assert "-i DATA" in err


def test_export_verify_inspect(call: Call, run: Path, skin: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.normscan"
    code, out, _ = call("export", run, "-o", target, "--json")
    assert code == 0
    assert data(out)["verify"][0]["passed"] is True
    code, _, err = call("export", run, "-o", target)
    assert code == 2
    assert "--force" in err
    code, out, _ = call("verify", target, "--json")
    assert code == 0
    assert data(out)[0]["flips"] == 0
    code, out, _ = call("inspect", target)
    assert code == 0
    assert "hash verified" in out
    code, out, _ = call("inspect", skin, "--json")
    assert code == 0
    assert data(out)["counts"]["train"] == {"normal": 48}
    assert data(out)["masks"] == 6


def test_export_builds_an_engine_from_a_bundle(call: Call, bundle: Path) -> None:
    code, out, _ = call("export", bundle, "--engine", "tensorrt-rtx", "--gpu", "sm86", "--batch", 1, 1, 2, "--json")
    assert code == 0
    found = data(out)["engine"]
    assert (found["gpus"], found["batch"]) == (["sm86"], [1, 1, 2])
    assert Path(found["path"]).parent == bundle.with_name("ocad.engines")
    code, _, err = call("export", bundle, "--precision", "fp16")
    assert code == 2
    assert "is a bundle: engines are built from it" in err


def test_export_refuses_what_it_would_ignore(call: Call, run: Path, tmp_path: Path) -> None:
    for options, said in (
        (("--engine", "tensorrt_rtx"), "engine 'tensorrt_rtx': for a lower precision"),
        (("--gpu", "sm86"), "--gpu and --batch are for what is built"),
        (("--batch", 1, 2, 3), "--gpu and --batch are for what is built"),
        (("--plan",), "--plan goes with --engine triton"),
    ):
        code, _, err = call("export", run, "-o", tmp_path / "x.normscan", *options)
        assert code == 2
        assert said in err
    assert list(tmp_path.iterdir()) == []


def test_export_writes_a_repository_for_triton(call: Call, bundle: Path, run: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", bundle, "--engine", "triton", "-o", tmp_path / "models", "--json")
    assert code == 0
    assert data(out)["repository"] == str(tmp_path / "models" / "ocad")
    for arguments in ((bundle,), (run, "-o", tmp_path / "models")):
        code, _, err = call("export", *arguments, "--engine", "triton")
        assert code == 2
        assert "normscan export BUNDLE -o REPOSITORY" in err
    code, _, err = call("export", bundle, "--engine", "triton", "-o", tmp_path / "more", "--plan")
    assert code == 1
    assert "pip install 'normscan[tensorrt]'" in err  # an engine of TensorRT is what Triton would serve
    assert not (tmp_path / "more").exists()


def test_bench_tells_and_refuses(call: Call, bundle: Path) -> None:
    options = ("--engine", "onnxruntime", "--batch", 2, "--threads", 1, "--seconds", 0.02, "--rounds", 1)
    code, out, _ = call("bench", bundle, *options)
    assert code == 0
    head, row = out.splitlines()
    assert head.split()[:4] == ["bundle", "precision", "engine", "device"]
    assert row.startswith("ocad.normscan  fp32       onnxruntime")
    golden = load_file(bundle / "golden.safetensors")
    golden["score"] = golden["score"] + 1
    save_file(golden, bundle / "golden.safetensors")
    seal(bundle)
    code, out, _ = call("bench", bundle, *options, "--json")
    assert code == 5
    assert data(out)[0]["p50_ms"] is None


def test_doctor(call: Call) -> None:
    code, out, _ = call("doctor", "--json")
    assert code == 0
    found = data(out)
    assert found["engines"] == {"onnxruntime": True, "openvino": True, "torch": True}
    assert found["families"] == names()
    assert found["simd"] in found["simd_levels"]
    code, out, _ = call("doctor")
    assert "Not a medical device" in out


def test_train_tells_what_is_next(call: Call, skin: Path, tmp_path: Path) -> None:
    changes = ["--set", "size=16", "--set", "widths=[4,4]", "--set", "epochs=1", "--set", "key_size=4"]
    code, out, err = call("train", "ocad", "-i", skin, "-o", tmp_path / "run", *changes)
    assert code == 0
    assert "normscan export" in out
    assert "epoch 1/1" in err
    assert (tmp_path / "run" / "log.jsonl").read_text().count("\n") == 1


def test_the_face_of_the_package() -> None:
    """`normscan.train` and `normscan.families` stay functions after the packages of those names were imported."""
    import normscan
    import normscan.families.ocad
    import normscan.train.loop

    assert list(normscan.families()) == list(normscan.families()) == names()
    assert "ocad" in names()
    with pytest.raises(normscan.Error, match="no such folder"):
        normscan.train("ocad", "nowhere", "never")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = normscan.lod  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["file", "glob"])
def test_maps_stay_below_the_output_folder(call: Call, bundle: Path, skin: Path, tmp_path: Path, how: str) -> None:
    folder = Path(shutil.copytree(skin / "test" / "abnormal", tmp_path / "in"))
    before = sorted(folder.iterdir())
    target = before[0] if how == "file" else f"{folder}/*.png"
    code, _, _ = call("score", bundle, "-i", target, "-o", tmp_path / "out", "--maps")
    assert code == 0
    assert sorted(folder.iterdir()) == before
    assert (tmp_path / "out" / "maps" / f"{before[0].name}.png").is_file()
    code, _, err = call("score", bundle, "-i", tmp_path, "-o", tmp_path / "out", "--maps", "--force")
    assert code == 2
    assert "lies among the pictures" in err


def test_a_picture_that_was_trained_on_cannot_test(
    call: Call, bundle: Path, run: Path, skin: Path, tmp_path: Path
) -> None:
    data = tmp_path / "other"
    shutil.copytree(skin / "test", data / "test")
    assert call("evaluate", bundle, "-i", data, "-o", tmp_path / "fine")[0] == 0  # a test set may come alone
    shutil.copy(skin / "train" / "normal" / "0003.png", data / "test" / "normal" / "renamed.png")
    for model in (bundle, run):
        code, _, err = call("evaluate", model, "-i", data, "-o", tmp_path / "e")
        assert code == 3
        assert "renamed.png" in err
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("verb", ["evaluate", "export", "demo", "train"])
def test_force_replaces_nothing_that_is_not_ours(
    call: Call, bundle: Path, run: Path, skin: Path, tmp_path: Path, verb: str
) -> None:
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter.txt").write_text("years of work")
    arguments: dict[str, list[object]] = {
        "evaluate": ["evaluate", bundle, "-i", skin, "-o", target],
        "export": ["export", run, "-o", target],
        "demo": ["demo", "-o", target],
        "train": ["train", "ocad", "-i", skin, "-o", target],
    }
    code, _, err = call(*arguments[verb], "--force")
    assert code == 2
    assert str(target) in err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert (target / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "change", ["seed=99999999999999999999", "widths=[0,8]", "channels=2", "validation=0.9", "target_specificity=1"]
)
def test_impossible_values_are_refused_before_anything_is_written(
    call: Call, skin: Path, tmp_path: Path, change: str
) -> None:
    code, _, err = call("train", "ocad", "-i", skin, "-o", tmp_path / "run", "--set", change)
    assert code == 3
    assert change.partition("=")[0] in err
    assert not (tmp_path / "run").exists()


def test_a_file_where_a_folder_is_wanted(call: Call, bundle: Path, skin: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = call("train", "ocad", "-i", skin, "-o", tmp_path / "file")
    assert code == 2
    assert "is a file" in err
    code, _, err = call("score", bundle, "-i", skin / "test", "-o", tmp_path / "file" / "x")
    assert code == 3
    assert "file" in err
