"""A run that is killed and resumed ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from normscan.errors import UsageError
from normscan.families import family
from normscan.train.run import train

# Five kills, and a Ctrl-C, which saves within an epoch.
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL]
TINY = {**family("ocad").tiny, "epochs": 40, "patience": 40}


def command(data: Path, run: Path) -> list[str]:
    changes = [part for name, value in TINY.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    arguments = ["train", "ocad", "-i", str(data), "-o", str(run), "--preset", "paper", "--threads", "2", *changes]
    return [sys.executable, "-m", "normscan.cli", *arguments]


def stop_at_a_random_step(data: Path, run: Path, how: signal.Signals, chance: random.Random, *, resume: bool) -> int:
    """Start or resume, wait for another checkpoint, and a little longer, and send the signal -> exit code."""
    before = {p.name for p in (run / "checkpoints").glob("checkpoint-*")} if resume else set()
    process = subprocess.Popen(
        [*command(data, run), *(["--resume"] if resume else [])], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while process.poll() is None and {p.name for p in (run / "checkpoints").glob("checkpoint-*")} <= before:
        time.sleep(0.005)
    time.sleep(chance.uniform(0.0, 0.3))
    process.send_signal(how)
    process.communicate()
    return process.returncode


def test_five_kills_and_a_ctrl_c_change_nothing(skin: Path, tmp_path: Path) -> None:
    subprocess.run(command(skin, tmp_path / "whole"), check=True, capture_output=True)
    chance = random.Random(0)
    codes = [
        stop_at_a_random_step(skin, tmp_path / "killed", how, chance, resume=i > 0) for i, how in enumerate(SIGNALS)
    ]
    # Any other code: the run ended before it could be stopped, and needs more epochs.
    assert codes == [130 if how == signal.SIGINT else -how for how in SIGNALS]
    subprocess.run([*command(skin, tmp_path / "killed"), "--resume"], check=True, capture_output=True)
    whole, resumed = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all((whole[name] == resumed[name]).all() for name in whole)
    files = [json.loads((tmp_path / name / "manifest.json").read_text())["files"] for name in ("whole", "killed")]
    assert files[0] == files[1]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    assert [json.loads(line)["epoch"] for line in logs[1]] == [json.loads(line)["epoch"] for line in logs[0]]


def test_ctrl_c_saves_at_the_step(skin: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(skin, tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopping after this step" in error
    (saved,) = (tmp_path / "run" / "checkpoints").glob("checkpoint-*")
    state = json.loads((saved / "state.json").read_text())
    progress = dict(dict(state["$dict"])["progress"]["$dict"])
    assert progress["count"] > 0


def test_another_configuration_cannot_resume(skin: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"epochs: 2 then, 3 now"):
        train("ocad", skin, run, preset="paper", overrides={**family("ocad").tiny, "epochs": 3}, resume=True)
    with pytest.raises(UsageError, match="not empty"):
        train("ocad", skin, run, preset="paper", overrides=family("ocad").tiny)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="no run of normscan wrote"):
        train("ocad", skin, tmp_path, overrides=family("ocad").tiny, force=True)
