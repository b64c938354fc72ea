"""Equality first, then time: every contender of a case in the same rounds, with the same number of threads.

A round runs each contender once, in changing order, and two yardsticks beside them: a copy of memory and a matrix
product. So what else happens on the machine falls on all of them, and a share of the machine's rate is a share of what
the machine gave in those very seconds. A ratio is the median over rounds of peer / ours.

torch is imported where it is used: `bench_session` measures the memory of a process that has none.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from clocks import Clock, clock

from normscan import _native


class Effort(NamedTuple):
    """How long one case is measured, and how large its yardsticks are."""

    seconds: float
    """Aimed at for the rounds of one case; slow cases take the fewest rounds however long they last."""
    rounds: tuple[int, int]
    """Fewest and most."""
    copy_bytes: int
    matrix_side: int


EFFORTS = {"cpu": Effort(4.0, (7, 60), 128 << 20, 1024), "cuda": Effort(1.5, (7, 60), 1 << 30, 4096)}
"""The copies are several times as large as any cache."""
QUICK = Effort(0.0, (2, 2), 1 << 20, 64)
"""To see that everything runs."""


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
    """On a GPU also "tf32": float32, whose products tensor cores may round."""
    device: str = "cpu"
    """Or "cuda": torch's current one."""
    share: float | None = None
    """Least share of the copy's bandwidth for `ours[0]`."""


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
    effort: Effort

    @property
    def copy_gbps(self) -> float:
        """Copy bandwidth in the rounds of this case, bytes read and written, GB/s."""
        return 2 * self.effort.copy_bytes / self.times.median("copy") / 1e6

    @property
    def matrix_gflops(self) -> float:
        """Matrix rate in the rounds of this case, GFLOP/s."""
        return 2 * self.effort.matrix_side**3 / self.times.median("matrix") / 1e6

    def of_copy(self, name: str) -> float:
        """One contender's share of the copy's bandwidth in the same round: the median."""
        return self.case.moved / (2 * self.effort.copy_bytes) * self.times.ratio(name, "copy")

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
        if self.case.share is not None:
            memory["of_copy"] = rounded(self.of_copy(impl))
        return {**header, "impl": impl, **{k: rounded(v) for k, v in figures.items()}, **against, **memory}


def measure(case: Case, effort: Effort) -> Measured:
    """Check all, leave out those that are wrong or do not run, time the rest."""
    with precision(case):
        return checked_and_timed(case, effort)


def checked_and_timed(case: Case, effort: Effort) -> Measured:
    """`measure`, in the precision of the case."""
    failed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    right = yardsticks(case, effort)
    extra = extra_memory(case.ours[0].run) if case.memory_limit is not None else None
    for contender in case.ours:
        try:
            contender.check(contender.run())
            right.append(contender)
        except Exception as error:  # whatever it is, the other cases shall still be measured
            failed[contender.name] = reason(error)
    if extra is not None and case.memory_limit is not None and extra > case.memory_limit:
        failed["memory"] = f"{extra / 2**20:.1f} MiB beyond the outputs, expected at most {case.memory_limit >> 20}"
    for contender in case.peers:
        try:
            contender.check(contender.run())
            right.append(contender)
        except (AssertionError, RuntimeError) as error:  # torch's: no such kernel, no compiler
            left_out[contender.name] = reason(error)
    times = Times(rounds(right, effort, clock(case.device)))
    return Measured(without_memory(case), times, failed, left_out, extra, effort)


def reason(error: Exception) -> str:
    """The kind of the error and its first line: some print whole tensors after it."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def without_memory(case: Case) -> Case:
    """The case without its arrays, which would otherwise lie in memory beside those of the next one."""

    def spent(*_: Any) -> None:
        raise RuntimeError(f"{case.name} has been measured")

    ours, peers = ([Contender(c.name, spent, spent) for c in side] for side in (case.ours, case.peers))
    return replace(case, ours=ours, peers=peers)


@contextmanager
def precision(case: Case) -> Iterator[None]:
    """Let torch round the factors of float32 products to tf32 on a GPU in the cases that say so, and in no other."""
    if case.device == "cpu":
        yield
        return
    import torch

    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = case.dtype == "tf32"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def rounds(contenders: Sequence[Contender], effort: Effort, clock: Clock) -> dict[str, np.ndarray]:
    """Milliseconds a call of each contender, [rounds]. A short call is repeated, after one that nobody times."""
    single = {c.name: clock.block(c.run, 1) for c in contenders}
    calls = {name: max(1, ceil(clock.block_seconds / seconds)) for name, seconds in single.items()}
    one_round = sum(single[name] * (calls[name] + (calls[name] > 1)) + clock.pause for name in calls)
    fewest, most = effort.rounds
    count = min(most, max(fewest, int(effort.seconds / one_round)))
    found = {c.name: np.empty(count) for c in contenders}
    gc.collect()
    gc.disable()
    try:
        for i in range(count):
            shift = i % len(contenders)
            for c in (*contenders[shift:], *contenders[:shift]):
                time.sleep(clock.pause)
                if calls[c.name] > 1:
                    c.run()
                found[c.name][i] = 1e3 * clock.block(c.run, calls[c.name])
    finally:
        gc.enable()
    return found


def yardsticks(case: Case, effort: Effort) -> list[Contender]:
    """What the machine can do: "copy" memory, and multiply a "matrix" (torch's own product, in the case's dtype)."""
    import torch

    source = torch.ones(effort.copy_bytes // 4, device=case.device)
    target = torch.empty_like(source)
    dtype = torch.float32 if case.dtype == "tf32" else getattr(torch, case.dtype)
    left = torch.randn(effort.matrix_side, effort.matrix_side, device=case.device).to(dtype)
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


def rounded(value: float) -> float:
    """To four digits: more are noise."""
    return float(f"{value:.4g}")
