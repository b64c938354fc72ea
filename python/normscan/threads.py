"""How many threads the native core uses, and who decides it."""

from __future__ import annotations

import operator
import os

from normscan import _native
from normscan.errors import ArgumentError

MOST = 1024

_chosen = False
_torch = 0


def processors() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(n: int) -> None:
    """Let the native core use n threads, the calling one included: 1..1024, in this process and its forks.

    The first of these decides: the last call of this function (`normscan.load(threads=...)` is one), before or after
    torch is used; torch's own number (`torch.set_num_threads`), which every op takes over that is given torch tensors;
    the processors that the affinity of the process and its cgroups allow. Results do not depend on the number.
    """
    global _chosen  # noqa: PLW0603  (one switch for the process, as the pool is one)
    try:
        count = operator.index(n)
    except TypeError:
        raise ArgumentError(f"set_threads: n is {n!r}, expected a whole number of 1..{MOST}") from None
    if not 1 <= count <= MOST:
        raise ArgumentError(f"set_threads: n is {count}, expected 1..{MOST}")
    _native.set_threads(count)
    _chosen = True


def follow_torch(count: int) -> None:
    """Take over torch's number of threads where it is new, unless `set_threads` has decided."""
    global _torch  # noqa: PLW0603  (mirrors torch's own global)
    if not _chosen and count != _torch:
        _native.set_threads(count)
        _torch = count
