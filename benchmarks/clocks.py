"""How time is taken: by the host's clock for what runs on the CPU, by the device's own events for what runs on a GPU.

torch is imported where it is used, as in `timing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

FLUSH_BYTES = 256 << 20
"""Several times the L2 cache of any GPU so far."""


class Clock(Protocol):
    """Times blocks of calls. Shorter blocks than `block_seconds` are too short; `pause` is taken before each."""

    block_seconds: float
    pause: float

    def block(self, run: Callable[[], Any], calls: int) -> float:
        """Seconds a call, over so many calls."""


class HostClock:
    """Wall time of the calls, one after the other."""

    block_seconds = 0.005
    pause = 0.003
    """OpenMP's threads of the contender before may still be spinning on the cores."""

    def block(self, run: Callable[[], Any], calls: int) -> float:
        """Seconds a call, over so many calls."""
        started = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - started) / calls


class CudaClock:
    """Time on the device between two events around each call, after a sweep that empties the L2 cache.

    Events and not the host's clock: waiting for the device costs the host more than many of these kernels last. Because
    of the sweep nobody finds inputs in the cache that a call before left there, and the host has put the call on the
    stream before the device gets to it: what a launch costs counts only where it takes the host longer than the sweep.
    The sweep reads: lines that it had written would have to leave the cache at the cost of the call.
    """

    block_seconds = 0.001
    pause = 0.0

    def __init__(self, device: str) -> None:
        import torch

        self._swept = torch.zeros(FLUSH_BYTES // 4, device=device)
        self._sum = torch.zeros((), device=device)

    def block(self, run: Callable[[], Any], calls: int) -> float:
        """Seconds a call, over so many calls."""
        import torch

        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for start, end in pairs:
            torch.sum(self._swept, 0, out=self._sum)
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) / 1e3 / calls


def clock(device: str) -> Clock:
    """The one for a device, "cpu" or "cuda"."""
    return HostClock() if device == "cpu" else CudaClock(device)
