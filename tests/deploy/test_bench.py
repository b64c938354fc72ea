"""Times of engines: verified first, every setting in its own process, beside another program in turns."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from bundles import nudge_weights, seal
from normscan.deploy.bench import Peer, measure, settings
from normscan.deploy.bench.measure import _device_mib
from normscan.deploy.bench.work import gflop
from normscan.deploy.bundle import Bundle
from normscan.deploy.export import onnx_bytes
from normscan.deploy.precision import at_precision
from normscan.deploy.quantisation import ranges
from normscan.errors import DeviceError, UsageError


def test_every_setting_is_measured(exported: Path, skin: Path) -> None:
    peer = Peer(f"{sys.executable} -c \"import sys; print('fast'); print(2.5 if sys.argv[1:] else 1)\" {{folder}}")
    wanted = settings([exported], batches=[1, 4], threads=[1])
    assert [(s.engine, s.batch) for s in wanted] == [
        ("onnxruntime", 1), ("onnxruntime", 4), ("openvino", 1), ("openvino", 4)
    ]  # fmt: skip
    rows = measure(wanted, data=skin / "test", seconds=0.05, rounds=2, peer=peer)
    for row, setting in zip(rows, wanted, strict=True):
        assert (row.bundle, row.precision, row.engine) == ("ocad.normscan", "fp32", setting.engine)
        assert not row.refused
        assert 0.05 < row.cold_start_s < 60  # type: ignore[operator]
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms  # type: ignore[operator]
        assert list(row.hops_ms) == ["read", "prepare", "engine", "score"]
        assert all(0 < ms < row.p99_ms for ms in row.hops_ms.values())
        assert 20 < row.peak_mib < 4000  # type: ignore[operator]
        assert 0 < row.gflops < 1e5  # type: ignore[operator]
        assert row.peer_ms == 2.5
        assert row.times_peer > 0  # type: ignore[operator]
        # The calls of the rounds take the time that their number of pictures says.
        assert row.images_per_second == pytest.approx(1e3 * setting.batch / row.p50_ms, rel=3)


def test_an_engine_that_scores_differently_gets_no_time(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(nudge_weights((bundle / "model.onnx").read_bytes(), 1.05))
    seal(bundle)
    (row,) = measure(settings([bundle], ["openvino"], [1], [1]), seconds=0.01, rounds=1)
    assert "openvino DISAGREES with golden" in row.refused
    assert (row.p50_ms, row.cold_start_s, row.hops_ms) == (None, None, {})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("say 'it", "--peer .*: No closing quotation"),
        ("no-such-program", "--peer 'no-such-program' failed"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "failed"),
        (f"{sys.executable} -c 'print(7); print(None)'", "its last line is 'None', expected a number"),
        (f"{sys.executable} -c 'print(-1)'", "its last line is '-1', expected a number: milliseconds a picture"),
        (f"{sys.executable} -c ''", "its last line is ''"),
    ],
)
def test_a_peer_that_does_not_answer_is_told(command: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Peer(command).milliseconds([Path("a/b.png")])


@pytest.mark.parametrize(("script", "found"), [("echo 1234", 1234.0), ("echo '[N/A]'", None), ("exit 9", None)])
def test_memory_of_a_gpu_is_what_its_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: float | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\ntest "$1" = --id=3 || exit 1\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _device_mib("cuda:3") == found
    assert _device_mib("cpu") is None
    monkeypatch.setenv("PATH", "")
    assert _device_mib("cuda:3") is None


def test_a_worker_that_dies_is_told(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DeviceError, match="the process that scores ended with exit code 1"):
        measure(settings([exported], ["onnxruntime"], [1], [1]), data=tmp_path, seconds=0.01, rounds=1)


class Made(NamedTuple):
    y: torch.Tensor


class Network(torch.nn.Module):
    """One product of each kind, on [N,3,8,8]."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = torch.nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.linear = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Made:
        y = torch.relu(self.up(torch.relu(self.down(x))))
        return Made(self.linear(y @ y.transpose(2, 3)))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_operations_are_counted_from_the_graph(exported: Path, precision: str) -> None:
    x = np.ones((2, 3, 8, 8), np.float32)
    bundle = Bundle.open(exported)
    whole = onnx_bytes(Network().eval(), x)
    model = at_precision(whole, precision, ranges=ranges(whole, [x]))
    found = gflop(replace(bundle, files={**bundle.files, "model.onnx": model}))
    down, up, square, linear = 4 * 4 * 4 * 27, 4 * 4 * 4 * (2 * 2 * 2), 2 * 8 * 8 * 8, 2 * 8 * 5 * 8
    assert found == pytest.approx(2 * (down + up + square + linear) / 1e9, rel=1e-9)
