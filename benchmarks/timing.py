"""Equality first, then time: every contender of a case in the same rounds, with the same number of threads.

A round runs each contender once, in changing order, and two yardsticks beside them: a copy of memory and a matrix
product. So what else happens on the machine falls on all of them, and a share of the machine's rate is a share of what
the machine gave in those very seconds. A ratio is the median over rounds of peer / ours.

torch is imported where it is used: `bench_session` measures the memory of a process that has none.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from normscan import _native
from normscan.files import write_json

MACHINE = f"{platform.machine()}-{os.cpu_count()}cpu"
RESULTS = Path(__file__).parent / "results" / f"{MACHINE}.json"

CASE_SECONDS = 4.0
"""Aimed at for the rounds of one case; slow cases take `FEWEST_ROUNDS` however long they last."""
FEWEST_ROUNDS, MOST_ROUNDS = 7, 60
BLOCK_SECONDS = 0.005
"""A call shorter than this is repeated within a round, after one call that nobody times."""
PAUSE_SECONDS = 0.003
"""Before each contender: OpenMP's threads of the one before may still be spinning on the cores."""
COPY_BYTES = 128 << 20
"""Four times a large last-level cache."""
MATRIX_SIDE = 1024


class Contender(NamedTuple):
    """One way to compute a case; `check` raises AssertionError where the result of `run` is wrong."""

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None]


@dataclass(frozen=True)
class Case:
    """One op at one size. `ours[0]` is the one that goals are about."""

    op: str
    name: str
    ours: Sequence[Contender]
    peers: Sequence[Contender]
    moved: int
    """Bytes that must move at least: every input read once, every output written once."""
    flops: int
    """Useful floating-point operations: padding and recomputation are nobody's merit."""
    goals: Mapping[str, float] = field(default_factory=dict)
    """Least ratio against a peer by name, or against "best", the fastest one."""
    memory_limit: int | None = None
    """Bytes that the first call of `ours[0]` may take beyond its outputs."""
    dtype: str = "float32"
    device: str = "cpu"


class Times(NamedTuple):
    """Milliseconds a call: one row a contender, one column a round."""

    ms: dict[str, np.ndarray]

    def median(self, name: str) -> float:
        """Of one contender."""
        return float(np.median(self.ms[name]))

    def quartiles(self, name: str) -> tuple[float, float]:
        """First and third, of one contender."""
        first, third = np.percentile(self.ms[name], (25, 75))
        return float(first), float(third)

    def ratio(self, ours: str, peer: str) -> float:
        """How many times faster ours is than the peer in the same round: the median."""
        return float(np.median(self.ms[peer] / self.ms[ours]))


@dataclass(frozen=True)
class Measured:
    """What one case gave. `failed` names contenders of ours that are wrong, `left_out` peers that do not run here."""

    case: Case
    times: Times
    failed: dict[str, str]
    left_out: dict[str, str]
    extra_memory: int | None

    @property
    def copy_gbps(self) -> float:
        """Copy bandwidth in the rounds of this case, bytes read and written, GB/s."""
        return 2 * COPY_BYTES / self.times.median("copy") / 1e6

    @property
    def matrix_gflops(self) -> float:
        """Matrix rate in the rounds of this case, GFLOP/s."""
        return 2 * MATRIX_SIDE**3 / self.times.median("matrix") / 1e6

    def gbps(self, name: str) -> float:
        """GB/s of one contender."""
        return self.case.moved / self.times.median(name) / 1e6

    def gflops(self, name: str) -> float:
        """GFLOP/s of one contender."""
        return self.case.flops / self.times.median(name) / 1e6

    def running(self, contenders: Iterable[Contender]) -> list[str]:
        """Names of those that were right, and so were timed."""
        return [c.name for c in contenders if c.name in self.times.ms]

    def goals(self) -> dict[str, float]:
        """The case's goals, with "best" replaced by the name of the fastest peer; none without a contender of ours."""
        ours, peers = self.running(self.case.ours), self.running(self.case.peers)
        if not ours or not peers:
            return {}
        best = min(peers, key=self.times.median)
        return {best if name == "best" else name: least for name, least in self.case.goals.items()}

    def records(self) -> list[dict[str, Any]]:
        """One for each contender of ours and peer, for the results file."""
        peers = self.running(self.case.peers) or [None]
        return [self._record(impl, peer) for impl in self.running(self.case.ours) for peer in peers]

    def _record(self, impl: str, peer: str | None) -> dict[str, Any]:
        first, third = self.times.quartiles(impl)
        figures: dict[str, float | None] = {
            "ms": self.times.median(impl),
            "ms_q1": first,
            "ms_q3": third,
            "gbps": self.gbps(impl),
            "gflops": self.gflops(impl),
        }
        against = {
            "peer": peer,
            "peer_ms": None if peer is None else rounded(self.times.median(peer)),
            "ratio": None if peer is None else rounded(self.times.ratio(impl, peer)),
        }
        header = {"op": self.case.op, "case": self.case.name, "device": self.case.device, "dtype": self.case.dtype}
        memory = {} if self.extra_memory is None else {"extra_mib": rounded(self.extra_memory / 2**20)}
        return {**header, "impl": impl, **{k: rounded(v) for k, v in figures.items()}, **against, **memory}


def measure(case: Case) -> Measured:
    """Check all, leave out those that are wrong or do not run, time the rest."""
    failed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    right = yardsticks()
    extra = extra_memory(case.ours[0].run) if case.memory_limit is not None else None
    for contender in case.ours:
        try:
            contender.check(contender.run())
            right.append(contender)
        except AssertionError as error:
            failed[contender.name] = str(error)
    if extra is not None and case.memory_limit is not None and extra > case.memory_limit:
        failed["memory"] = f"{extra / 2**20:.1f} MiB beyond the outputs, expected at most {case.memory_limit >> 20}"
    for contender in case.peers:
        try:
            contender.check(contender.run())
            right.append(contender)
        except (AssertionError, RuntimeError) as error:  # torch's: no such kernel, no compiler
            left_out[contender.name] = str(error).strip() or type(error).__name__
    return Measured(case, Times(rounds(right)), failed, left_out, extra)


def rounds(contenders: Sequence[Contender]) -> dict[str, np.ndarray]:
    """Milliseconds a call of each contender, [rounds]."""
    single = {c.name: block(c.run, 1) for c in contenders}
    calls = {name: max(1, ceil(BLOCK_SECONDS / seconds)) for name, seconds in single.items()}
    one_round = sum(single[name] * (calls[name] + (calls[name] > 1)) + PAUSE_SECONDS for name in calls)
    count = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(CASE_SECONDS / one_round)))
    found = {c.name: np.empty(count) for c in contenders}
    gc.collect()
    gc.disable()
    try:
        for i in range(count):
            shift = i % len(contenders)
            for c in (*contenders[shift:], *contenders[:shift]):
                time.sleep(PAUSE_SECONDS)
                if calls[c.name] > 1:
                    c.run()
                found[c.name][i] = 1e3 * block(c.run, calls[c.name])
    finally:
        gc.enable()
    return found


def block(run: Callable[[], Any], calls: int) -> float:
    """Seconds a call, over so many calls."""
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def yardsticks() -> list[Contender]:
    """What the machine can do: "copy" memory, and multiply a "matrix" (float32, torch's own product)."""
    import torch

    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    left = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    product = torch.empty_like(left)
    found = [
        Contender("copy", lambda: target.copy_(source), lambda _: None),
        Contender("matrix", lambda: torch.mm(left, left, out=product), lambda _: None),
    ]
    for yardstick in found:
        yardstick.run()  # the first copy meets unmapped pages
    return found


def extra_memory(run: Callable[[], Any]) -> int:
    """Bytes by which this process's peak grows during a call (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = memory_status("VmRSS")
    run()
    return memory_status("VmHWM") - before


def memory_status(name: str) -> int:
    """One line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def set_threads(count: int) -> None:
    """The same number for everybody: the native pool, torch, OpenCV, and numpy's BLAS."""
    import cv2
    import threadpoolctl
    import torch

    _native.set_threads(count)
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    threadpoolctl.threadpool_limits(count, user_api="blas")


def header(measured: Sequence[Measured]) -> dict[str, Any]:
    """The machine that the records were taken on; its rates are medians over the cases."""
    import torch

    return {
        "processor": processor(),
        "threads": _native.threads(),
        "simd": _native.simd_level(),
        "compiler": _native.build_info()["compiler"],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "copy_gbps": rounded(float(np.median([m.copy_gbps for m in measured]))),
        "matrix_gflops": rounded(float(np.median([m.matrix_gflops for m in measured]))),
        "cuda": "not measured",
    }


def processor() -> str:
    """As the system calls it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def rounded(value: float) -> float:
    """To four digits: more are noise."""
    return float(f"{value:.4g}")


def stored() -> dict[str, Any]:
    """What the results file of this machine holds."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"machine": MACHINE}


def store(**parts: Any) -> None:
    """Replace these keys of this machine's results file, keep the others."""
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, {**stored(), **parts})


def store_records(measured: Sequence[Measured]) -> None:
    """Replace the records of the ops that were measured."""
    ops = {m.case.op for m in measured}
    kept = [r for r in stored().get("records", []) if r["op"] not in ops]
    store(hardware=header(measured), records=[*kept, *(r for m in measured for r in m.records())])
