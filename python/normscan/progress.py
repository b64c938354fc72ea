"""How long work shows itself: a bar on a terminal, a plain line now and then elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
QUIET_SECONDS = 10.0
"""Between two plain lines, where there is no terminal."""


class Bar(Protocol):
    """One piece of work in progress."""

    def advance(self, count: int = 1, **figures: float) -> None:
        """`count` more are done; the figures (loss, images/s) stand beside the bar."""


@contextmanager
def bar(description: str, total: int, *, unit: str = "images") -> Iterator[Bar]:
    """Show `description` until the block ends; speed in `unit` per second and time left are derived."""
    if sys.stderr.isatty():
        with _RichBar(description, total, unit) as shown:
            yield shown
    else:
        yield _Lines(description, total, unit)


def track(items: Iterable[T], description: str, total: int, *, unit: str = "images") -> Iterator[T]:
    """Iterate with a bar, one step an item."""
    with bar(description, total, unit=unit) as shown:
        for item in items:
            yield item
            shown.advance()


def say(text: str) -> None:
    """One line of log, on stderr, so that stdout holds data only."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (this is where the package speaks)


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


class _RichBar:
    def __init__(self, description: str, total: int, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._unit, self._done, self._start = unit, 0, time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(description, total=total, figures="")

    def __enter__(self) -> _RichBar:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def advance(self, count: int = 1, **figures: float) -> None:
        self._done += count
        speed = self._done / max(time.monotonic() - self._start, 1e-9)
        text = f"{_text(figures)}  {speed:.0f} {self._unit}/s"
        self._progress.update(self._task, advance=count, figures=text)


class _Lines:
    def __init__(self, description: str, total: int, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done, self._start, self._told = 0, time.monotonic(), time.monotonic()

    def advance(self, count: int = 1, **figures: float) -> None:
        self._done += count
        now = time.monotonic()
        if self._done < self._total and now - self._told < QUIET_SECONDS:
            return
        self._told = now
        speed = self._done / max(now - self._start, 1e-9)
        left = (self._total - self._done) / max(speed, 1e-9)
        numbers = f"{self._done}/{self._total}  {_text(figures)}  {speed:.0f} {self._unit}/s, {left:.0f} s left"
        say(f"{self._description}: {numbers}")
