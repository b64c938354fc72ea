"""What verbs share: the options that mean the same everywhere, and the two ways to speak (for people, for programs)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from normscan.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; logs stay on stderr.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda:N. A device that is not there is an error.")]
Threads = Annotated[int, typer.Option("--threads", min=0, max=1024, help="CPU threads; 0 takes all cores.")]
Batch = Annotated[
    int, typer.Option("--batch", min=1, max=4096, help="Pictures in one engine call; scores do not depend on it.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1)]
Data = Annotated[Path, typer.Option("-i", "--input", help="Folder of pictures (train/normal, test/normal, test/...).")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")]
Model = Annotated[Path, typer.Argument(help="A bundle (x.normscan) or a run folder.", show_default=False)]

SCORES = ("file", "score", "decision", "threshold", "error")
"""The columns of scores.csv."""


def emit(value: Any, text: str, *, as_json: bool) -> None:
    """Print the result: `value` as one JSON document, or `text`."""
    sys.stdout.write((json.dumps(plain(value), ensure_ascii=False) if as_json else text) + "\n")


def scores_row(
    name: str,
    score: float | None = None,
    decision: str | None = None,
    threshold: float | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """One row of scores.csv."""
    return dict(zip(SCORES, (name, score, decision, threshold, error), strict=True))


def plain(value: Any) -> Any:
    """JSON values only: numpy scalars become numbers, paths text, NaN null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """["epochs=5", "widths=[8,8]"] -> {"epochs": 5, "widths": [8, 8]}; a value that is no JSON is text."""
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {item!r}: expected name=value, as in --set epochs=20")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
        except RecursionError:
            raise UsageError(f"--set {name}: nested too deeply") from None
    return found
