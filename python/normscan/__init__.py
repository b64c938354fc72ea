"""normscan: learn what healthy looks like, then score the rest.

The face of the package. It imports nothing heavy: torch, OpenCV and ONNX Runtime are loaded by the call that needs
them.

>>> import normscan
>>> session = normscan.load("runs/skin/ocad.normscan")
>>> result = session.score("lesion.jpg")
>>> result.score, result.decision, result.map.shape
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from normscan.errors import Error

if TYPE_CHECKING:
    from normscan.deploy.session import Result, Session, load
    from normscan.families import families
    from normscan.threads import set_threads
    from normscan.train import train

__version__ = "0.1.0"

_LAZY = {
    "load": "normscan.deploy.session",
    "Session": "normscan.deploy.session",
    "Result": "normscan.deploy.session",
    "train": "normscan.train",
    "families": "normscan.families",
    "set_threads": "normscan.threads",
}

__all__ = ["Error", "Result", "Session", "__version__", "families", "load", "set_threads", "train"]


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'normscan' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
