"""`normscan generate NAME train|sample`, as a person or a program uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from image_files import disc
from normscan.cli.generate import parse_size
from normscan.data.generated import read_generated
from normscan.data.read import read_image, write_image
from normscan.errors import UsageError
from normscan.generate import generator, names

Call = Callable[..., tuple[int, str, str]]
TINY = [part for name, value in generator("singan").tiny.items() for part in ("--set", f"{name}={value}")]


@pytest.mark.parametrize("name", names())
def test_help(call: Call, name: str) -> None:
    code, out, _ = call("generate", "--help")
    assert code == 0
    assert name in out
    for verb in ("train", "sample"):
        code, out, _ = call("generate", name, verb, "--help")
        assert code == 0
        assert "--json" in out


def test_train_and_sample(call: Call, tmp_path: Path) -> None:
    write_image(tmp_path / "disc.png", disc())
    model, out = tmp_path / "model", tmp_path / "out"
    arguments = ["generate", "singan", "train", "-i", tmp_path / "disc.png", "-o", model, "--preset", "paper", *TINY]
    code, text, err = call(*arguments, "--threads", 1)
    assert code == 0
    assert "next: normscan generate singan sample" in text
    assert "scale 3/3" in err
    assert call(*arguments)[0] == 2
    code, text, err = call(*arguments, "--resume", "--json")
    assert code == 0
    assert json.loads(text)["generator"] == "singan"
    assert "finished already" in err
    sampling = ["generate", "singan", "sample", model, "-o", out, "-n", 2, "--seed", 3, "--size", "20x31"]
    code, text, _ = call(*sampling, "--start-scale", 1, "--json")
    assert code == 0
    assert json.loads(text)["table"] == str(out / "generated.csv")
    rows = read_generated(out)
    assert [row.seed for row in rows] == [3, 4]
    assert read_image(rows[0].path).shape == (20, 31, 3)
    assert call(*sampling)[0] == 2
    assert call(*sampling, "--force")[0] == 0


def test_wrong_command_lines(call: Call, tmp_path: Path) -> None:
    for arguments, expected, text in (
        (["singam", "train"], 2, "Did you mean 'singan'"),
        (["singan", "train", "-o", tmp_path / "m"], 2, "-i IMAGE or --template IMAGE"),
        (["singan", "train", "-i", tmp_path / "nowhere.png", "-o", tmp_path / "m"], 3, "nowhere.png"),
        (["singan", "train", "-i", "x", "-o", tmp_path / "m", "--set", "iteration=3"], 3, "did you mean 'iterations'"),
        (["singan", "sample", tmp_path / "m", "-o", tmp_path / "o"], 3, "not a finished model"),
        (["singan", "sample", tmp_path / "m", "-o", tmp_path / "o", "--size", "12"], 2, "as in --size 96x128"),
    ):
        code, _, err = call("generate", *arguments)
        assert code == expected
        assert text in err
        assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("text", ["96", "96x", "0x4", "4x0", "-4x4", "4X4", "96x128x3", "1000000x2"])
def test_sizes_that_are_none(text: str) -> None:
    assert parse_size("96x128") == (96, 128)
    with pytest.raises(UsageError, match="height x width"):
        parse_size(text)
