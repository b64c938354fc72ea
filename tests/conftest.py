"""What all tests share: the hypothesis profile, and one small data set, run and bundle, made once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# OpenMP's waiting threads would take the cores from whatever else runs here, subprocesses of the tests included.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same few examples every time, without a clock and without a database.
settings.register_profile("normscan", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("normscan")


@pytest.fixture(autouse=True)
def _own_number_of_threads() -> Iterator[None]:
    """`--threads` and `load(threads=...)` set torch's number for the whole process; the next test has the usual one."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def skin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: 48 training normals, 6 + 6 test pictures with masks, 32 pixels. Never written to."""
    from normscan.data.synthetic import write_demo

    root = tmp_path_factory.mktemp("skin") / "data"
    write_demo(root, seed=3, size=32, train=48, test_normal=6, test_abnormal=6)
    return root


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biopsies of 32 made-up patients, 6 + 6 patches of 64 pixels each. Never written to."""
    from normscan.data.synthetic_histology import write_cohort

    root = tmp_path_factory.mktemp("cohort") / "data"
    write_cohort(root, seed=5, patients=32, patches=6, annotated=6, size=64)
    return root


@pytest.fixture(scope="session")
def models(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of the tiniest `stain_ae` and `patch_cnn` on it. Never written to."""
    from normscan.families import family
    from normscan.train.run import train

    folder = tmp_path_factory.mktemp("models")
    for name in ("stain_ae", "patch_cnn"):
        train(name, cohort, folder / name, overrides={**family(name).tiny, "epochs": 3})
    return [folder / "stain_ae", folder / "patch_cnn"]


@pytest.fixture(scope="session")
def run(skin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiniest `ocad`. Never written to."""
    from normscan.families import family
    from normscan.train.run import train

    folder = tmp_path_factory.mktemp("run") / "run"
    train("ocad", skin, folder, preset="paper", overrides=family("ocad").tiny)
    return folder


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle. Never written to."""
    from normscan.deploy.export import export

    return export(run, tmp_path_factory.mktemp("bundle") / "ocad.normscan").folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to damage."""
    return Path(shutil.copytree(exported, tmp_path / "ocad.normscan"))


@pytest.fixture
def picture() -> np.ndarray:
    """One test picture, uint8 [40,56,3]."""
    from normscan.data.synthetic import dermoscopy

    return dermoscopy(np.random.default_rng(9), size=56, abnormal=True)[0][:40]
