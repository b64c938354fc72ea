"""The published methods. A family is a folder with a `FAMILY` card; nothing else names it."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from normscan.errors import UsageError
from normscan.families.config import Config
from normscan.families.family import Batch, Family, Schedule, Step
from normscan.packages import callable_package

__all__ = ["Batch", "Config", "Family", "Schedule", "Step", "families", "family", "names"]


def names() -> list[str]:
    """Every family's name; imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


@cache
def families() -> dict[str, Family]:
    """Every family by name, discovered from the sub-folders; loads torch."""
    return {name: import_module(f"{__name__}.{name}").FAMILY for name in names()}


def family(name: str) -> Family:
    """One family by name; an unknown name is a `UsageError` with the nearest one."""
    known = families()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise UsageError(f"family {name!r} does not exist; {hint}")
    return known[name]


callable_package(__name__, families)
