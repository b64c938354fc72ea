"""`normscan.train(...)` and `normscan.families()` are functions, and packages of the same names hold their code.

Importing a package binds its name in `normscan`, over whatever stood there. So these two packages can be called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def callable_package(name: str, function: Callable[..., Any]) -> None:
    """Let the package `name` be called as `function`."""

    class CallablePackage(ModuleType):
        __call__ = staticmethod(function)

    sys.modules[name].__class__ = CallablePackage
