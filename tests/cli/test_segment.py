"""`normscan segment` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normscan.cli.segment import angles
from normscan.data.read import write_image
from normscan.data.synthetic import dermoscopy

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    for i in range(2):
        picture = dermoscopy(np.random.default_rng(i), size=64, abnormal=True)[0]
        write_image(tmp_path / "shots" / f"{i}.png", picture)
        if i == 0:
            write_image(tmp_path / "part.png", picture[10:40, 20:44])
    return tmp_path / "shots"


def test_parts_are_counted_and_misses_listed(call: Call, shots: Path, tmp_path: Path) -> None:
    given = ("segment", "-i", shots, "-t", tmp_path / "part.png", "-o", tmp_path / "out", "--threshold", 0.95, "--json")
    code, out, err = call(*given)
    found = json.loads(out)
    assert code == 4
    assert (found["pictures"], found["parts"]) == (2, 1)
    assert list(found["failed"]) == [str(shots / "1.png")]
    assert "no match: the best score is" in err
    assert (tmp_path / "out" / "crops" / "0-0.png").is_file()


def test_turned_and_scaled(call: Call, shots: Path, tmp_path: Path) -> None:
    given = ("segment", "-i", shots / "0.png", "-t", tmp_path / "part.png", "-o", tmp_path / "out")
    code, out, _ = call(*given, "--scales", "0.9,1", "--rotate", 10, "--rotate-step", 5, "--limit", 1)
    assert code == 0
    assert "1 parts in 1 pictures" in out
    assert "scores 1.000" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--scales", "big"], 2, "--scales 'big': expected numbers of 0.05 to 20.0"),
        (["--scales", "0"], 2, "expected numbers of 0.05"),
        (["--threshold", "2"], 2, "threshold"),
        (["--scales", "9"], 3, "is larger than the picture (64 x 64)"),
        (["--force", "-t", "missing.png"], 3, "missing.png: no such file"),
    ],
)
def test_wrong_requests(call: Call, shots: Path, tmp_path: Path, options: list[str], code: int, message: str) -> None:
    given = ("segment", "-i", shots, "-t", tmp_path / "part.png", "-o", tmp_path / "out", *options)
    found, _, err = call(*given)
    assert found == code
    assert message in err
    assert not (tmp_path / "out").exists()


def test_angles_go_to_both_sides_and_meet_once() -> None:
    assert sorted(angles(10, 5)) == [-10, -5, 0, 5, 10]
    assert sorted(angles(180, 90)) == [-90, 0, 90, 180]
    assert angles(0, 5) == (0.0,)
