"""`stain_ae`: its networks, what it learns from, and that it sees what a mean over a patch does not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from normscan.data.histology import read_histology
from normscan.errors import ConfigError
from normscan.families.stain_ae import FAMILY
from normscan.families.stain_ae.config import StainAeConfig
from normscan.families.stain_ae.network import StainAe
from normscan.families.stain_ae.spec import stain_ae_spec
from normscan.scoring.scorer import Scorer
from normscan.train.run import train

TINY = StainAeConfig.parse(FAMILY.tiny)


def config(**fields: Any) -> StainAeConfig:
    return StainAeConfig.parse({**TINY.model_dump(), **fields})


@pytest.mark.parametrize("architecture", ["unet", "unet_skips", "conv"])
@pytest.mark.parametrize("widths", [(4,), (4, 8, 16)])
def test_networks_give_the_picture_back_in_its_size(architecture: str, widths: tuple[int, ...]) -> None:
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        found = StainAe(config(architecture=architecture, widths=widths, size=48)).eval()(x)
    assert found.image is x
    assert found.reconstruction.shape == x.shape
    assert 0 <= float(found.reconstruction.min()) <= float(found.reconstruction.max()) <= 1


def test_skips_carry_what_the_bottleneck_cannot() -> None:
    """Without skips, two pictures that agree at the coarsest level are given back alike; with them, not."""
    for architecture, alike in (("unet", True), ("unet_skips", False)):
        torch.manual_seed(0)
        net = StainAe(config(architecture=architecture, widths=(4, 8), size=16)).eval()
        with torch.no_grad():
            for parameter in net.autoencoder.down[1].parameters():
                parameter.zero_()  # the coarsest features say nothing
        with torch.no_grad():
            one, other = (net(torch.rand(1, 3, 16, 16)).reconstruction for _ in range(2))
        assert torch.equal(one, other) == alike


def rods(amount: float) -> tuple[np.ndarray, np.ndarray]:
    """(picture, reconstruction) [1,3,32,32]: bluish tissue, and in the picture a short brown rod."""
    rebuilt = np.broadcast_to(np.array([0.7, 0.7, 0.85], np.float32)[:, None, None], (3, 32, 32)).copy()
    image = rebuilt.copy()
    image[:, 10:12, 8:14] += amount * (np.array([0.45, 0.25, 0.15], np.float32)[:, None, None] - image[:, 10:12, 8:14])
    return image[None], rebuilt[None]


@pytest.mark.parametrize("score", ["residual", "red_ratio", "l2"])
def test_a_rod_raises_every_score(score: str) -> None:
    spec = stain_ae_spec(config(score=score, size=32, hue=(340, 40), least_saturation=0.3))
    scorer = Scorer(spec, {})
    values = []
    for amount in (0.0, 1.0):
        image, reconstruction = rods(amount)
        values.append(float(scorer.score({"image": image, "reconstruction": reconstruction}).scores[0]))
    assert values[1] > values[0]


def test_local_pooling_sees_what_the_mean_dilutes() -> None:
    """A rod of 12 in 1,024 pixels against a patch whose staining is a little off everywhere."""
    image, rebuilt = rods(1.0)
    off = rebuilt + np.array([0.08, 0.0, 0.0], np.float32)[None, :, None, None]
    found = {}
    for name, fields in {"mean": {}, "top": {"pool": {"topk": 0.01}, "blur_sigma": 1.0}}.items():
        scorer = Scorer(stain_ae_spec(config(size=32, cut=-1.0, **fields)), {})
        rod, shifted = (float(scorer.score({"image": x, "reconstruction": rebuilt}).scores[0]) for x in (image, off))
        found[name] = rod > shifted
    assert found == {"mean": False, "top": True}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 18, "widths": (4, 8, 16)}, "size: 18, expected a multiple of 4"),
        ({"size": 18, "widths": (4, 8), "architecture": "conv"}, "size: 18, expected a multiple of 4"),
        ({"window": 4}, "expected an odd number"),
        ({"channels": 1}, "staining is colour"),
    ],
)
def test_bad_config(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**fields)


def test_only_negative_patients_teach(cohort: Path, tmp_path: Path) -> None:
    run = train("stain_ae", cohort, tmp_path / "run", overrides={**FAMILY.tiny, "epochs": 1})
    whole = read_histology(cohort)
    negative = {r.path.relative_to(cohort).as_posix() for r in whole.cropped if r.label == 0}
    with (run.folder / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    taught = [row for row in rows if row["split"] in ("train", "validation", "calibration")]
    assert {row["file"] for row in taught} <= negative
    assert {row["split"] for row in taught} == {"train", "validation", "calibration"}
    # Infected patients of the training part teach nothing, and are kept out of every test all the same.
    aside = [row for row in rows if row["split"] == "unlabelled"]
    assert aside
    assert not {row["file"] for row in aside} & negative
    assert {row["sha256"] for row in aside} <= set(run.seen())
