"""The model folder: what is stored, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from image_files import disc
from normscan.data.read import write_image
from normscan.errors import BundleError, Error, InputError, UsageError
from normscan.files import sha256
from normscan.generate import generator
from normscan.generate.model import FILES, Model
from normscan.generate.sample import sample
from normscan.generate.train import train

TINY = generator("singan").tiny


@pytest.fixture
def model(learnt: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    return Path(shutil.copytree(learnt, tmp_path / "copy"))


def tiny(data: Path, folder: Path, *, resume: bool = False, force: bool = False, **changes: object) -> Model:
    return train("singan", data, folder, preset="paper", overrides={**TINY, **changes}, resume=resume, force=force)


def test_the_folder(learnt: Path, disc_file: Path) -> None:
    assert {p.name for p in learnt.iterdir()} == {*FILES, "log.jsonl", "manifest.json", "sheets"}
    assert [p.name for p in sorted((learnt / "sheets").iterdir())] == [f"scale-000{n}.png" for n in (1, 2, 3)]
    rows = [json.loads(line) for line in (learnt / "log.jsonl").read_text().splitlines()]
    assert [row["scale"] for row in rows] == [1, 2, 3]
    manifest = json.loads((learnt / "manifest.json").read_text())
    assert manifest["generator"] == "singan"
    assert manifest["files"] == {name: sha256(learnt / name) for name in FILES}
    (source,) = Model.open(learnt).sources
    assert (source.path, source.domain) == (disc_file, "ok")


def test_an_altered_model(model: Path, tmp_path: Path) -> None:
    config = model / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 9'))
    with pytest.raises(InputError, match=r"config\.json has changed since training"):
        sample(model, tmp_path / "out", count=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        Model.open(model)


def signed(model: Path, name: str) -> None:
    """Let the manifest vouch for a file as it is now: what lies under the hashes is checked, too."""
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"][name] = sha256(model / name)
    (model / "manifest.json").write_text(json.dumps(manifest))


def rewritten(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return apply


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no sizes": (rewritten(lambda t: t.pop("sizes")), "'sizes' is missing"),
    "no key": (rewritten(lambda t: t.pop("z_star")), "z_star"),
    "one key more": (rewritten(lambda t: t.update(more=t["sizes"].clone())), "more"),
    "shape": (rewritten(lambda t: t.update(z_star=t["z_star"][..., 1:].contiguous())), "z_star"),
    "sizes": (rewritten(lambda t: t.update(sizes=t["sizes"][:, :1].contiguous())), r"expected \[scales, 2\]"),
    "no safetensors": (lambda path: path.write_bytes(b"x"), "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_weights_that_do_not_fit(model: Path, tmp_path: Path, name: str) -> None:
    change, text = DAMAGES[name]
    change(model / "model.safetensors")
    signed(model, "model.safetensors")
    with pytest.raises(InputError, match=text) as error:
        sample(model, tmp_path / "out", count=1)
    assert "model.safetensors" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sources.csv", "a,b\n", "columns are"),
        ("manifest.json", "{}", "no manifest of a generator"),
        ("manifest.json", "{", "not valid JSON"),
    ],
)
def test_other_damage(model: Path, name: str, text: str, expected: str) -> None:
    (model / name).write_text(text)
    if name in FILES:
        signed(model, name)
    with pytest.raises(InputError, match=expected) as error:
        Model.open(model)
    assert name in str(error.value)


def test_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a finished model \(no manifest\.json\)"):
        Model.open(tmp_path)


def test_what_is_there_stays(learnt: Path, disc_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UsageError, match="--resume"):
        tiny(disc_file, learnt)
    with pytest.raises(UsageError, match="no generator of normscan wrote"):
        tiny(disc_file, tmp_path / "thesis", force=True)
    with pytest.raises(UsageError, match="is a file"):
        tiny(disc_file, tmp_path / "thesis" / "chapter.txt")
    with pytest.raises(UsageError, match=r"width: 8 then, 4 now"):
        tiny(disc_file, learnt, resume=True)
    write_image(tmp_path / "other.png", disc()[::-1].copy())
    config = json.loads((learnt / "config.json").read_text())
    with pytest.raises(UsageError, match="the pictures differ"):
        train("singan", tmp_path / "other.png", learnt, preset="paper", overrides=config, resume=True)


def test_a_kill_loses_one_scale_at_most(disc_file: Path, tmp_path: Path) -> None:
    changes = {**TINY, "iterations": 10}
    arguments = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "normscan.cli", "generate", "singan", "train", "-i", str(disc_file)]
    command += ["-o", str(tmp_path / "killed"), "--preset", "paper", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (found := sorted((tmp_path / "killed" / "checkpoints").glob("checkpoint-*"))):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "manifest.json").exists()
    shutil.copytree(found[0].parent.parent, tmp_path / "altered")
    resumed = tiny(disc_file, tmp_path / "killed", iterations=10, resume=True)
    whole = tiny(disc_file, tmp_path / "whole", iterations=10)
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert all(bool((resumed.tensors[name] == value).all()) for name, value in whole.tensors.items())
    assert resumed.manifest["files"]["model.safetensors"] == whole.manifest["files"]["model.safetensors"]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("killed", "whole")]
    assert len(logs[0]) == len(logs[1]) == 3
    assert not (tmp_path / "whole" / "checkpoints").exists()
    before = (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns
    tiny(disc_file, tmp_path / "whole", iterations=10, resume=True)  # finished already: nothing is trained
    assert (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns == before

    (checkpoint,) = (tmp_path / "altered" / "checkpoints").glob("checkpoint-*")
    state = checkpoint / "state.json"
    state.write_text(state.read_text().replace('"trained"', '"train"'))
    with pytest.raises(BundleError, match="does not fit this training"):
        tiny(disc_file, tmp_path / "altered", iterations=10, resume=True)


def test_a_loss_that_is_no_number(disc_file: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="lower learning_rate"):
        tiny(disc_file, tmp_path / "model", learning_rate=1e30)
    assert not (tmp_path / "model" / "manifest.json").exists()
