"""A picture with structure, and one small trained model of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_files import disc
from normscan.data.read import write_image

LEARNT = {"min_size": 12, "max_size": 32, "width": 8, "scales": 3, "iterations": 60}


@pytest.fixture(scope="session")
def disc_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file. Never written to."""
    path = tmp_path_factory.mktemp("disc") / "disc.png"
    write_image(path, disc())
    return path


@pytest.fixture(scope="session")
def learnt(disc_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `singan` that has learnt the disc. Never written to."""
    from normscan.generate.train import train

    folder = tmp_path_factory.mktemp("learnt") / "model"
    train("singan", disc_file, folder, preset="paper", overrides=LEARNT)
    return folder
