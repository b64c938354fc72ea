"""The process that scores: `python -m normscan.deploy.bench.worker JSON`; a line of JSON for every line it is sent.

It begins with its first score, so that what a cold start takes is seen from outside, and answers each "round" with the
time that every hop of every call took.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from normscan.deploy.session import Session, load

HOPS = ("read", "prepare", "engine", "score")


def main() -> None:
    """Load, score once, say so, then measure as often as asked."""
    asked = json.loads(sys.argv[1])
    paths = [Path(name) for name in asked["paths"]]
    session = load(asked["bundle"], engine=asked["engine"], device=asked["device"], threads=asked["threads"])
    session.score(paths[0])
    answer({"first_score_at": time.time(), **session.engine.fingerprint()})
    source = cycle(paths)
    for line in sys.stdin:
        seconds = float(line)
        calls: list[list[float]] = []
        until = time.perf_counter() + seconds
        while not calls or time.perf_counter() < until:
            calls.append(call(session, [next(source) for _ in range(asked["batch"])]))
        answer({"hops": HOPS, "calls": calls, "matrix_gflops": matrix_gflops(), "peak_mib": peak_mib()})


def call(session: Session, paths: list[Path]) -> list[float]:
    """Milliseconds of each hop of a batch, and of all that `Session.score` does."""
    before = dict(session.hops.seconds)
    started = time.perf_counter()
    session.score(paths)
    whole = time.perf_counter() - started
    return [1e3 * seconds for seconds in (*(session.hops.seconds[hop] - before[hop] for hop in HOPS), whole)]


def matrix_gflops(side: int = 768) -> float:
    """What a float32 product of numpy's reaches in these very seconds: the yardstick of the engine's rate."""
    a = np.ones((side, side), np.float32)
    best = min(_timed(a) for _ in range(3))
    return 2 * side**3 / best / 1e9


def _timed(a: np.ndarray) -> float:
    started = time.perf_counter()
    a @ a
    return time.perf_counter() - started


def peak_mib() -> float:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux includes the process that this one was forked from
        return int(status.read_text("ascii").partition("VmHWM:")[2].split()[0]) / (1 << 10)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def answer(value: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
