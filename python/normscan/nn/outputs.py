"""The named outputs of a network whose configuration says how many there are."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any


def outputs_type(names: Sequence[str]) -> Any:
    """A named tuple of tensors, as every network gives."""
    return namedtuple("Outputs", names)
