"""Training a generator: the units of its training (scales, epochs), a contact sheet and a checkpoint after each."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from normscan.checkpoint import latest_checkpoint, read_state, save_checkpoint
from normscan.data.read import write_image
from normscan.errors import BundleError, Error
from normscan.files import told, write_bytes
from normscan.generate import generator
from normscan.generate.card import Training
from normscan.generate.model import Model, finish, open_folder
from normscan.generate.pictures import contact_sheet
from normscan.progress import bar, say

CPU = torch.device("cpu")


def train(
    name: str,
    data: str | Path | None,
    output: str | Path,
    *,
    template: str | Path | None = None,
    preset: str = "small",
    overrides: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    resume: bool = False,
    force: bool = False,
) -> Model:
    """Train the generator `name` on the pictures in `data`, on the one good `template`, or on both, as it can.

    The model is written to `output`; a finished or half-done one is a `UsageError` unless `resume` or `force`. A
    resumed training ends with the same weights, bit for bit, as an uninterrupted one on the same machine with the same
    number of threads; SIGKILL loses at most the current scale or epoch.
    """
    card, folder = generator(name), Path(output)
    config = card.config.preset(preset, overrides)
    sources = card.sources(None if data is None else Path(data), None if template is None else Path(template))
    training = card.training(config, sources, device)
    open_folder(folder, config, sources, resume=resume, force=force)
    if resume and (folder / "manifest.json").is_file():
        say(f"{folder} is finished already")
        return Model.open(folder)
    log = _resumed(training, folder / "checkpoints")
    for index in range(len(log), training.count):
        log.append(_unit(training, index))
        _write(training, folder, log)
    finish(folder, card, config, preset, training.weights())
    return Model.open(folder)


def _resumed(training: Training, checkpoints: Path) -> list[dict[str, float]]:
    """Put the last checkpoint's state, where there is one, into `training`  ->  the log so far, one row a unit."""
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint is None:
        return []
    state = read_state(checkpoint)
    try:
        log: list[dict[str, float]] = state["log"]
        training.load_state_dict(state["training"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{checkpoint} does not fit this training ({error!r}); start anew with --force") from error
    say(f"resumed after {training.unit} {len(log)} of {training.count}")
    return log


def _unit(training: Training, index: int) -> dict[str, float]:
    started = time.monotonic()
    with bar(training.title(index), training.length(index), unit="steps") as shown:
        figures = training.run(index, shown)
    if bad := [name for name, value in figures.items() if not math.isfinite(value)]:
        raise Error(
            f"{bad[0]} is {figures[bad[0]]} in {training.unit} {index + 1}; lower learning_rate, and look at the "
            "contact sheets"
        )
    return {training.unit: index + 1, **figures, "seconds": time.monotonic() - started}


def _write(training: Training, folder: Path, log: list[dict[str, float]]) -> None:
    sheets = folder / "sheets"
    with told(sheets):
        sheets.mkdir(exist_ok=True)
    write_image(sheets / f"{training.unit}-{len(log):04d}.png", contact_sheet(training.sheet()))
    write_bytes(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in log).encode())
    save_checkpoint(folder / "checkpoints", {"log": log, "training": training.state_dict()})
