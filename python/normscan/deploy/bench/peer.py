"""Another program, measured in turn with ours on the same pictures."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normscan.errors import UsageError


@dataclass(frozen=True)
class Peer:
    """A command that scores the pictures of a folder (`{folder}` stands for it, or it is added at the end).

    It prints, on its last line, the milliseconds that a picture took.
    """

    command: str

    def milliseconds(self, pictures: Sequence[Path]) -> float:
        """Run it once; a `UsageError` says what it printed where that is no number."""
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise UsageError(f"--peer {self.command!r}: {error}") from error
        folder = str(pictures[0].parent)
        filled = [word.replace("{folder}", folder) for word in words]
        if filled == words:
            filled.append(folder)
        try:
            done = subprocess.run(filled, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise UsageError(f"--peer {self.command!r} failed: {said[-1] if said else error}") from error
        last = (done.stdout.strip().splitlines() or [""])[-1]
        try:
            found = float(json.loads(last))
        except (ValueError, TypeError):
            found = 0.0
        if not 0 < found < float("inf"):
            raise UsageError(
                f"--peer {self.command!r}: its last line is {last!r}, expected a number: milliseconds a picture"
            )
        return found
