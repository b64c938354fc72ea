"""Unlabelled pictures reach the steps that ask for them, and no label of theirs does."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from normscan.data.layouts import read_layout
from normscan.data.sample import Record
from normscan.data.synthetic import write_demo
from normscan.errors import ImageError, InputError
from normscan.families import Batch, family
from normscan.train import records as records_module
from normscan.train.loader import Pictures, epoch_order, is_grey, unlabelled_seed
from normscan.train.loop import Loop
from normscan.train.records import gather
from normscan.train.run import train

SAGAN = family("sagan")
SEMI = {**SAGAN.tiny, "mode": "semi_supervised", "flip": True, "iterations": 6}
"""Two epochs of three steps, each with a batch of 8."""


@pytest.fixture(scope="module")
def mixed(skin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared data, with 5 + 5 unlabelled pictures and one that is labelled abnormal in train."""
    root = tmp_path_factory.mktemp("mixed") / "data"
    shutil.copytree(skin, root)
    write_demo(root.parent / "more", seed=4, size=32, train=1, test_normal=5, test_abnormal=6)
    (root / "train" / "unlabelled").mkdir()
    (root / "train" / "abnormal").mkdir()
    found = sorted((root.parent / "more" / "test").rglob("*.png"))
    for i, path in enumerate(found):
        shutil.copy(path, root / "train" / ("abnormal" if i == 0 else "unlabelled") / f"u{i}.png")
    return root


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "network.safetensors")


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def run(data: Path, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    train("sagan", data, folder, preset="paper", overrides=SEMI, **options)
    return weights(folder)


@pytest.fixture(scope="module")
def whole(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return run(mixed, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("label", [0, 1, "by_turns"])
def test_labels_of_unlabelled_pictures_change_nothing(
    mixed: Path, whole: dict[str, np.ndarray], label: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layout may know them, rightly or wrongly."""

    def told(root: Path) -> list[Record]:
        known = [i % 2 if label == "by_turns" else int(label) for i in range(1000)]
        return [replace(r, label=known[i]) if r.split == "unlabelled" else r for i, r in enumerate(read_layout(root))]

    monkeypatch.setattr(records_module, "read_layout", told)
    assert equal(run(mixed, tmp_path / "run"), whole)


def test_the_unlabelled_pictures_themselves_do(mixed: Path, whole: dict[str, np.ndarray], tmp_path: Path) -> None:
    other = shutil.copytree(mixed, tmp_path / "data")
    for path in (other / "train" / "unlabelled").iterdir():
        shutil.copy(next((mixed / "train" / "abnormal").iterdir()), path)
    assert not equal(run(other, tmp_path / "run"), whole)


def greyed(data: Path, folder: Path, pattern: str, mode: str) -> Path:
    other = Path(shutil.copytree(data, folder / "data"))
    for path in sorted(other.glob(pattern)):
        Image.open(path).convert("L").convert(mode).save(path)
    return other


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_among_coloured_pictures_is_told(mixed: Path, mode: str, tmp_path: Path) -> None:
    """Stored in one channel or in three equal ones: the critic sees that alone."""
    other = greyed(mixed, tmp_path, "train/unlabelled/u[1-3].png", mode)
    expected = r"u1.png: grey, as 3 of 34 normal and unlabelled pictures are, .* in colour; .* --set channels=1"
    with pytest.raises(ImageError, match=expected):
        run(other, tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_pictures_that_show_nothing_are_of_no_kind(mixed: Path, tmp_path: Path) -> None:
    """A white tile of a slide among coloured ones; nor does one red mark make a grey scan coloured."""
    blank = np.full((32, 32, 3), 255, np.uint8)
    scan = np.repeat(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32, 1), 3, axis=2)
    assert is_grey(blank) is None
    scan[0, 0] = (255, 0, 0)
    assert is_grey(scan) is True
    other = Path(shutil.copytree(mixed, tmp_path / "data"))
    Image.fromarray(blank).save(other / "train" / "unlabelled" / "u1.png")
    run(other, tmp_path / "run")


def test_grey_pictures_alone_train_and_so_do_all_as_grey(mixed: Path, tmp_path: Path) -> None:
    """However they are stored; and a mix, once it is taken as grey."""
    both = greyed(greyed(mixed, tmp_path / "a", "train/*/*.png", "L"), tmp_path / "b", "train/unlabelled/*.png", "RGB")
    run(both, tmp_path / "run")
    part = greyed(mixed, tmp_path / "c", "train/unlabelled/*.png", "L")
    train("sagan", part, tmp_path / "grey", preset="paper", overrides={**SEMI, "channels": 1})


def test_abnormal_training_pictures_are_left_out(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SAGAN.config.parse(SEMI)
    found = gather(SAGAN, config, mixed)
    assert {r.label for r in found if r.split == "train"} == {0}
    assert [r.label for r in found if r.split == "unlabelled"] == [None] * 10
    shown = capsys.readouterr().err
    assert "1 pictures in train that are not normal are left out: sagan learns normals and unlabelled pictures" in shown
    assert "unlabelled 10" in shown


def test_no_unlabelled_pictures_are_told(skin: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no unlabelled pictures, expected some in train/unlabelled/ .*mode=one_class"
    ):
        run(skin, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def seen(mixed: Path, *, start: int = 0, **fields: Any) -> list[Batch]:
    """The batches of the second epoch, from `start` on."""
    config = SAGAN.config.parse({**SEMI, **fields})
    found = gather(SAGAN, config, mixed)
    parts = {part: Pictures([r for r in found if r.split == part]) for part in ("train", "unlabelled")}
    network = SAGAN.network(config)

    class Judge:
        spec = SAGAN.spec(config)

        def judged_by(self, *_: Any) -> Judge:
            return self

    step = SAGAN.stages[0](network, config)
    loop = Loop(network, step, config, parts["train"], Judge(), unlabelled=parts["unlabelled"])  # type: ignore[arg-type]
    loop.progress.epoch, loop.progress.batch = 1, start
    return list(loop._batches())


def test_every_batch_has_as_many_unlabelled_pictures(mixed: Path) -> None:
    """In a permutation after the other, each picture augmented anew when it comes again."""
    given = seen(mixed)
    assert [b.unlabelled.shape == b.x.shape for b in given if b.unlabelled is not None] == [True] * 3
    config = SAGAN.config.parse(SEMI)
    order = epoch_order(10, seed=unlabelled_seed(config.seed), epoch=1, length=24)
    assert sorted(order[:10] % 10) == sorted(order[10:20] % 10) == list(range(10))
    flat = torch.cat([b.unlabelled for b in given if b.unlabelled is not None]).sum((2, 3))  # a flip keeps the sums
    first = {int(i): sums for i, sums in zip(order[:10], flat, strict=False)}
    for i, sums in zip(order[10:] % 10, flat[10:], strict=True):
        torch.testing.assert_close(sums, first[int(i)], rtol=1e-3, atol=0.05)


def test_an_epoch_goes_on_where_it_stopped(mixed: Path) -> None:
    whole_epoch, rest = seen(mixed), seen(mixed, start=1)
    assert len(rest) == 2
    for a, b in zip(whole_epoch[1:], rest, strict=True):
        assert torch.equal(a.x, b.x)
        assert a.unlabelled is not None
        assert b.unlabelled is not None
        assert torch.equal(a.unlabelled, b.unlabelled)


def test_a_stopped_run_ends_with_the_same_weights(
    mixed: Path, whole: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by Ctrl-C within the second epoch, and resumed."""
    steps = 0
    original: Callable[[Any, Batch], Any] = Loop._step

    def interrupted(self: Loop, batch: Batch) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(Loop, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(mixed, tmp_path / "run")
    monkeypatch.undo()
    assert equal(run(mixed, tmp_path / "run", resume=True), whole)
