"""Where the time of a stream of pictures goes: which hop the others wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AHEAD = ("read", "prepare")
"""Done by threads ahead of the engine."""
BEHIND = ("wait", "engine", "score")
"""Done by the one thread that runs the engine; "wait" is for pictures that are not ready."""


class Hops:
    """Seconds of each hop, summed over pictures and threads."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*AHEAD, *BEHIND), 0.0)
        self.pictures = 0
        self._started = time.perf_counter()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time as a hop's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - started

    @property
    def limit(self) -> str:
        """What to make faster first: "read" or "prepare" where the engine waits for them, else the slowest behind it.

        "elsewhere": whoever takes the results is slower than all of these.
        """
        total = max(time.perf_counter() - self._started, 1e-9)
        behind = {name: self.seconds[name] for name in BEHIND}
        behind["elsewhere"] = max(total - sum(behind.values()), 0.0)
        slowest = max(behind, key=lambda name: behind[name])
        return max(AHEAD, key=lambda name: self.seconds[name]) if slowest == "wait" else slowest

    def explain(self) -> str:
        """One line for people."""
        total = max(time.perf_counter() - self._started, 1e-9)
        shares = ", ".join(f"{name} {self.seconds[name] / total:.0%}" for name in BEHIND)
        return (
            f"{self.pictures} pictures in {total:.1f} s, {self.pictures / total:.1f} images/s; of the engine's thread "
            f"{shares}; the limit: {self.limit}"
        )
