"""Checkpoints hold everything, atomically, without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from normscan.checkpoint import latest_checkpoint, read_state, save_checkpoint
from normscan.errors import BundleError, OutputError, UsageError
from normscan.files import temporary_folder, write_bytes


def test_nested_state_round_trips(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "numbers": {"a": 1, "b": 2.5, "c": None, "d": True, "e": [1, (2, 3)]},
    }
    found = read_state(save_checkpoint(tmp_path, state))
    assert found["numbers"] == state["numbers"]
    assert torch.equal(found["random"], state["random"])
    other = torch.optim.Adam(module.parameters())
    other.load_state_dict(found["optimizer"])
    for key, entry in optimizer.state_dict()["state"].items():
        assert all(torch.equal(other.state_dict()["state"][key][name], value) for name, value in entry.items())
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


def test_only_the_newest_stays_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000009.deadbeef").mkdir()
    for count in (1, 2, 10):
        save_checkpoint(tmp_path, {"x": torch.tensor(count)})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000003"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert read_state(newest)["x"] == 10
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"x": torch.ones(3)})
    (path / "tensors.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="checkpoint-00000001"):
        read_state(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with temporary_folder(tmp_path / "x") as folder:
            (folder / "part").write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with pytest.raises(UsageError, match="--force"), temporary_folder(tmp_path / "x"):
        pass
    with pytest.raises(UsageError, match="did not write"), temporary_folder(tmp_path / "x", force=True):
        pass
    with temporary_folder(tmp_path / "x", force=True, ours=lambda folder: (folder / "old").exists()) as folder:
        (folder / "new").touch()
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_links_files_and_the_root_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for path in (tmp_path / "link", tmp_path / "file", Path("/")):
        with pytest.raises(UsageError), temporary_folder(path, force=True, ours=lambda folder: True):
            pass
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link", "file"}


def test_what_was_there_comes_back_when_replacing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if target == tmp_path / "x" and ".old-" not in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OutputError, match="No space left"),
        temporary_folder(tmp_path / "x", force=True, ours=lambda folder: True),
    ):
        pass
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "x.json", b"1")
