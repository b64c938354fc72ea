"""Engines, batches and threads of one bundle or several, measured in turns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.layouts import find_images
from normscan.data.read import write_image
from normscan.deploy.bench.peer import Peer
from normscan.deploy.bench.work import gflop
from normscan.deploy.bundle import Bundle
from normscan.deploy.engines import open_engine
from normscan.deploy.golden import golden_pictures
from normscan.deploy.verify import bundle_engines, golden_comparison
from normscan.errors import DeviceError
from normscan.progress import track
from normscan.threads import processors

PICTURES = 32
"""Of those that are given, so many are read in turn."""
ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    """One way to score."""

    bundle: Path
    engine: str
    device: str
    batch: int
    threads: int
    """0: all."""


@dataclass
class Row:
    """What was measured of a setting."""

    bundle: str
    precision: str
    engine: str
    version: str
    device: str
    batch: int
    threads: int
    refused: str = ""
    """Why nothing was timed: the engine does not score as torch did."""
    cold_start_s: float | None = None
    """From the start of the process to its first score."""
    p50_ms: float | None = None
    """Of a call: reading, preparing, running and scoring a batch."""
    p90_ms: float | None = None
    p99_ms: float | None = None
    images_per_second: float | None = None
    hops_ms: dict[str, float] = field(default_factory=dict)
    """Median of each hop, of a call."""
    peak_mib: float | None = None
    """Host memory of the process."""
    device_mib: float | None = None
    """By how much more memory of the GPU is in use after the first calls than before the process."""
    gflops: float | None = None
    """Of the engine hop."""
    of_matrix: float | None = None
    """Its share of what numpy's matrix product reaches with as many threads in the same seconds."""
    peer_ms: float | None = None
    """Of a picture."""
    times_peer: float | None = None
    """How many times faster than the peer, the median over rounds."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def settings(
    bundles: Sequence[Path],
    engines: Sequence[str] = (),
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (0,),
    device: str = "auto",
) -> list[Setting]:
    """Every combination; without engines those that are here."""
    return [
        Setting(path, engine, device, batch, count)
        for path in bundles
        for engine in (engines or bundle_engines(Bundle.open(path)))
        for batch in batches
        for count in threads
    ]


def measure(
    wanted: Sequence[Setting],
    *,
    data: Path | None = None,
    seconds: float = 1.0,
    rounds: int = ROUNDS,
    peer: Peer | None = None,
) -> list[Row]:
    """Time each setting in `rounds` of `seconds`, in turns, so that what else the machine does falls on all alike.

    data  pictures to read; without any, 32 are made, of the input's size
    """
    with ExitStack() as stack:
        paths = stack.enter_context(_pictures(wanted[0].bundle, data))
        verdicts: dict[tuple[Any, ...], tuple[str, dict[str, str]]] = {}
        rows = [_row(setting, verdicts) for setting in wanted]
        timed = [
            (row, setting, stack.enter_context(_worker(setting, row, paths)))
            for row, setting in zip(rows, wanted, strict=True)
            if not row.refused
        ]
        heard: list[list[dict[str, Any]]] = [[] for _ in timed]
        peers: list[float] = []
        for i in track(range(rounds + 1), "bench", rounds + 1, unit="rounds"):
            for (_, _, worker), answers in zip(timed, heard, strict=True):
                answer = _ask(worker, f"{seconds}\n")
                if i:  # the first round warms up
                    answers.append(answer)
            if peer is not None and i:
                peers.append(peer.milliseconds(paths))
        for (row, setting, _), answers in zip(timed, heard, strict=True):
            _fill(row, setting, answers, peers)
    return rows


def _row(setting: Setting, verdicts: dict[tuple[Any, ...], tuple[str, dict[str, str]]]) -> Row:
    """A row with nothing timed yet; an engine is verified once, whatever the batch."""
    bundle = Bundle.open(setting.bundle)
    key = (setting.bundle, setting.engine, setting.device, setting.threads)
    if key not in verdicts:
        engine = open_engine(setting.engine, bundle, device=setting.device, threads=setting.threads)
        compared = golden_comparison(bundle, engine)
        verdicts[key] = ("" if compared.passed else compared.explain(), engine.fingerprint())
    refused, told = verdicts[key]
    names = (setting.bundle.name, bundle.precision, setting.engine, told["version"], told["device"])
    return Row(*names, setting.batch, setting.threads or processors(), refused=refused)


@contextmanager
def _pictures(bundle: Path, data: Path | None) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory() as folder:
        if data is not None:  # in one folder, so that a peer reads the same
            chosen = find_images(data)[:PICTURES]
            yield [Path(shutil.copy(path, Path(folder) / f"{i:02}{path.suffix}")) for i, path in enumerate(chosen)]
            return
        paths = [Path(folder) / f"{i:02}.png" for i in range(PICTURES)]
        for path, pixels in zip(paths, golden_pictures(Bundle.open(bundle).spec.input, PICTURES), strict=True):
            write_image(path, np.rint(pixels * 255).astype(np.uint8))
        yield paths


@contextmanager
def _worker(setting: Setting, row: Row, paths: Sequence[Path]) -> Iterator[subprocess.Popen[str]]:
    """A process that scores, with its cold start noted."""
    asked = {
        "bundle": str(setting.bundle),
        "engine": setting.engine,
        "device": setting.device,
        "threads": setting.threads,
        "batch": setting.batch,
        "paths": [str(path) for path in paths],
    }
    # numpy's product, the yardstick, takes as many threads as the engine.
    limit = {name: str(row.threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "normscan.deploy.bench.worker", json.dumps(asked)]
    before = _device_mib(row.device)
    started = time.time()
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limit}
    )
    try:
        row.cold_start_s = round(_ask(worker, "")["first_score_at"] - started, 3)
        if before is not None:
            _ask(worker, "0\n")  # a batch
            row.device_mib = (_device_mib(row.device) or before) - before
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def _device_mib(device: str) -> float | None:
    """Memory in use of a GPU; None where it is none, or its driver's program does not say."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    command = ["nvidia-smi", f"--id={index or 0}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _ask(worker: subprocess.Popen[str], line: str) -> dict[str, Any]:
    """Send a line and wait for the answer; what else a library prints on stdout is passed over."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):  # it has died, and says nothing below
        worker.stdin.write(line)
        worker.stdin.flush()
    for heard in worker.stdout:
        if heard.startswith("{"):
            found: dict[str, Any] = json.loads(heard)
            return found
    raise DeviceError(f"the process that scores ended with exit code {worker.wait()}; its own words stand above")


def _fill(row: Row, setting: Setting, answers: Sequence[dict[str, Any]], peers: Sequence[float]) -> None:
    calls = np.array([call for answer in answers for call in answer["calls"]])
    whole = calls[:, -1]
    row.p50_ms, row.p90_ms, row.p99_ms = (round(float(v), 3) for v in np.percentile(whole, (50, 90, 99)))
    row.images_per_second = round(1e3 * setting.batch * len(whole) / float(whole.sum()), 1)
    row.hops_ms = dict(zip(answers[0]["hops"], np.median(calls[:, :-1], axis=0).round(3).tolist(), strict=True))
    row.peak_mib = round(max(answer["peak_mib"] for answer in answers), 1)
    if (work := gflop(Bundle.open(setting.bundle))) is not None:
        rates = [work * setting.batch / (np.median([c[2] for c in a["calls"]]) / 1e3) for a in answers]
        row.gflops = float(f"{np.median(rates):.4g}")
        shares = [rate / answer["matrix_gflops"] for rate, answer in zip(rates, answers, strict=True)]
        row.of_matrix = float(f"{np.median(shares):.3g}")
    if peers:
        ours = [float(np.median([call[-1] for call in answer["calls"]])) / setting.batch for answer in answers]
        row.peer_ms = round(float(np.median(peers)), 3)
        row.times_peer = round(float(np.median([p / o for p, o in zip(peers, ours, strict=True)])), 3)
