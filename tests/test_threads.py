(
    """`normscan.set_threads`, and who decides where nobody calls it.

The choice lasts as long as the process: cases that choose have one of their own.
"""
    ""
)

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import normscan
from normscan import _native
from normscan.errors import ArgumentError

OP = """
import numpy as np, torch
from normscan import _native, ops
def op():
    ops.gaussian(torch.zeros(2, 3), torch.zeros(3), torch.ones(1))
    return _native.threads()
"""


def printed(code: str) -> list[int]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_default_is_what_the_affinity_allows() -> None:
    pin = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    show = "from normscan import _native; print(_native.threads())"
    assert printed(pin + show) == [1]
    assert 1 <= printed(show)[0] <= len(os.sched_getaffinity(0))


def test_ops_take_over_the_number_of_torch() -> None:
    code = "for n in (2, 3, 1):\n    torch.set_num_threads(n)\n    print(op())"
    assert printed(OP + code) == [2, 3, 1]


def test_numpy_arrays_leave_the_number_alone() -> None:
    code = "_native.set_threads(3); ops.gaussian(np.zeros((2, 3)), np.zeros(3), np.ones(1)); print(_native.threads())"
    assert printed(OP + code) == [3]


@pytest.mark.parametrize("before", ["", "torch.set_num_threads(2); op()"])
def test_a_chosen_number_wins_over_that_of_torch(before: str) -> None:
    code = f"{before}\nimport normscan; normscan.set_threads(4); print(op())\ntorch.set_num_threads(1); print(op())"
    assert printed(OP + code + "\nnormscan.set_threads(2); print(op())") == [4, 4, 2]


@pytest.mark.parametrize("n", [0, -1, 1025, 2**40, 1.5, "2", None])
def test_a_wrong_number_is_refused_and_changes_nothing(n: object) -> None:
    before = _native.threads()
    with pytest.raises(ArgumentError, match=r"set_threads: n is .*, expected .*1\.\.1024"):
        normscan.set_threads(n)
    assert _native.threads() == before
