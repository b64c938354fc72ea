"""Training: the one loop, and the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normscan.packages import callable_package

if TYPE_CHECKING:
    from normscan.train.folder import Run


def train(
    family: str,
    data: str | Path,
    output: str | Path,
    *,
    preset: str = "small",
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    generated: str | Path | None = None,
    abnormal: str | Path | None = None,
) -> Run:
    """Train a detector; see `normscan.train.run.train`. Loads torch."""
    from normscan.train import run

    return run.train(
        family,
        data,
        output,
        preset=preset,
        overrides=overrides,
        device=device,
        resume=resume,
        force=force,
        generated=generated,
        abnormal=abnormal,
    )


callable_package(__name__, train)
