"""Image generators that feed a family. A generator is a folder with a `GENERATOR` card; nothing else names it.

normscan generate NAME train -i IMAGES -o MODEL     generate.train.train
normscan generate NAME sample MODEL -o OUT          generate.sample.sample
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from normscan.errors import UsageError

if TYPE_CHECKING:
    from normscan.generate.card import Generator

__all__ = ["generator", "names"]


def names() -> list[str]:
    """Every generator's name; imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if module.ispkg)


def generator(name: str) -> Generator:
    """One generator by name (loads torch); an unknown name is a `UsageError` with the nearest one."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise UsageError(f"generator {name!r} does not exist; {hint}")
    card: Generator = import_module(f"{__name__}.{name}").GENERATOR
    return card
