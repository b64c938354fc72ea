"""Sampling from a trained generator into a folder of PNGs with their table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from normscan.data.generated import TABLE, Generated, write_generated
from normscan.data.read import write_image
from normscan.errors import UsageError
from normscan.files import temporary_folder
from normscan.generate.model import Model
from normscan.generate.train import CPU
from normscan.progress import track

LARGEST_SEED = 2**63 - 1
_IMAGES = "images"


def sample(
    model: str | Path,
    output: str | Path,
    *,
    count: int = 16,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    force: bool = False,
) -> Path:
    """Draw `count` pictures into `output`/images, with the table `output`/generated.csv; returns the table's path.

    Picture i is drawn with seed + i, which the table holds: the same seed gives the same pixels on the same machine,
    whatever the count.
    """
    if count < 1 or seed < 0 or seed + count - 1 > LARGEST_SEED:
        raise UsageError(f"found {count} pictures from seed {seed} on, expected at least 1, and seeds of 0 to 2^63 - 1")
    trained = Model.open(Path(model))
    chosen = trained.generator.options.parse(options or {})
    made = trained.generator.sample(trained, chosen, range(seed, seed + count), device)
    with temporary_folder(Path(output), force=force, ours=_is_sampled) as folder:
        rows = []
        for number, picture in enumerate(track(made, f"sampling {trained.generator.name}", count)):
            path = folder / _IMAGES / f"{number:05d}.png"
            write_image(path, picture.pixels)
            rows.append(Generated(path, picture.origin, trained.generator.name, picture.seed, picture.parent))
        write_generated(folder, rows)
    return Path(output) / TABLE


def _is_sampled(folder: Path) -> bool:
    """Earlier samples, and nothing beside them."""
    return {path.name for path in folder.iterdir()} == {TABLE, _IMAGES}
