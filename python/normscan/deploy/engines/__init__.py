"""Engines run a network and return its named outputs. Which one is in use is always told, never changed in silence."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from normscan.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from normscan.deploy.bundle import Bundle
    from normscan.train.folder import Run

_ENGINES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}
"""Engine -> the package it needs; the module of the same name lies beside this file."""
ON_GPUS = ("tensorrt", "tensorrt-rtx")
"""Both in the module `tensorrt`; never taken unless they are asked for."""
_EXTRAS = {"torch": "train"}


class Engine(Protocol):
    """A network, opened."""

    name: str
    device: str

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """x [N,C,H,W] float32 -> named outputs, float32, batch first."""

    def fingerprint(self) -> dict[str, str]:
        """What a score depends on besides the bundle: versions and device."""


def open_engine(name: str, source: Bundle | Run, *, device: str = "auto", threads: int = 0) -> Engine:
    """Open a bundle (or, for the torch engine, a run).

    threads 0: all cores. A missing package is a `MissingExtraError`, a missing device or an unknown engine a
    `UsageError`.
    """
    if name in ON_GPUS:
        on_gpu: Engine = import_module(f"{__name__}.tensorrt").open_engine(
            source, device=device, threads=threads, name=name
        )
        return on_gpu
    if name not in _ENGINES:
        raise UsageError(f"engine {name!r} does not exist; there are: {', '.join((*_ENGINES, *ON_GPUS))}")
    if find_spec(_ENGINES[name]) is None:
        raise MissingExtraError(_ENGINES[name], _EXTRAS.get(name, name))
    engine: Engine = import_module(f"{__name__}.{name}").open_engine(source, device=device, threads=threads)
    return engine


def available_engines() -> dict[str, bool]:
    """Each engine, and whether its package is installed; imports none of them."""
    return {name: find_spec(package) is not None for name, package in _ENGINES.items()}
