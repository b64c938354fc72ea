"""Figures on a data folder's test pictures that `normscan evaluate` does not print; none of them chooses anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from normscan.data.augment import sample_rng
from normscan.data.layouts import read_layout
from normscan.data.pseudo import MAKERS
from normscan.data.read import read_image
from normscan.data.sample import Record
from normscan.deploy.session import load
from normscan.progress import track
from normscan.scoring.metrics import auroc, auroc_interval, pixel_auroc
from normscan.train.fit import Validation, score_all
from normscan.train.loader import Pictures, alike, batches, plain

UNSEEN_MAKERS = ("cutpaste", "poisson", "perlin")
"""Of planted lesions: not those that a family trains on (`fpi`) or is validated with (`mixed`)."""
_DRAW = -2
"""In place of an epoch, for `sample_rng`: no training or validation plants the same."""


def labelled(data: Path) -> list[Record]:
    """The test pictures whose label is known."""
    return [r for r in read_layout(data) if r.split == "test" and r.label is not None]


class Oracle:
    """Test AUROC after every validation, for `train(watch=...)`: what a choice by the test labels would have given."""

    def __init__(self, data: Path) -> None:
        self.records = labelled(data)
        self._pictures = Pictures(self.records)
        self.aurocs: list[float] = []
        self._terms: list[tuple[str, ...]] = []

    def __call__(self, network: nn.Module, found: Validation) -> None:
        """Score the test pictures; a stage that is judged by other outputs than the last begins anew."""
        spec = found.scorer.spec
        if (terms := [term.of for term in spec.terms]) != self._terms:
            self._terms, self.aurocs = terms, []
        made = batches(plain(self._pictures, spec.input), range(len(self.records)), 32)
        scores = score_all(network, found.scorer, (x for x, _ in made)).scores
        self.aurocs.append(auroc([r.label for r in self.records], scores))

    def gap(self, reached: float) -> dict[str, float]:
        """The best and the last epoch, and how far what was chosen stays below the best."""
        best = max(self.aurocs)
        return {"best": best, "best_epoch": self.aurocs.index(best) + 1, "last": self.aurocs[-1], "gap": best - reached}


def planted(bundle: Path, data: Path, seed: int = 0) -> dict[str, float]:
    """Pixel AUROC by maker, of lesions planted in test normals, one in each, the donor another of them."""
    session = load(bundle)
    normals = [r for r in labelled(data) if r.label == 0]
    found = {}
    for name in UNSEEN_MAKERS:
        pairs = [
            (session.score(pixels).map, mask)
            for pixels, mask in track(_lesions(normals, name, seed), f"planted by {name}", len(normals))
        ]
        found[name] = pixel_auroc([m for m, _ in pairs], [mask for _, mask in pairs])
    return found


def _lesions(normals: Sequence[Record], maker: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i, record in enumerate(normals):
        rng = sample_rng(seed, _DRAW, i)
        donor = normals[(i + 1 + int(rng.integers(len(normals) - 1))) % len(normals)]
        yield MAKERS[maker](*alike(read_image(record.path), read_image(donor.path)), rng)


def matched(bundle: Path, data: Path) -> dict[str, Any]:
    """AUROC once every test picture has the mean and standard deviation of the training normals.

    Where brightness alone separates a test set, this is what remains when it cannot.
    """
    train = [read_image(r.path).astype(np.float32) for r in read_layout(data) if r.split == "train"]
    mean, spread = np.mean([p.mean() for p in train]), np.mean([p.std() for p in train])
    session, test = load(bundle), labelled(data)
    scores = []
    for record in track(test, "matched", len(test)):
        pixels = read_image(record.path).astype(np.float32)
        pixels = (pixels - pixels.mean()) / max(pixels.std(), 1e-6) * spread + mean
        scores.append(session.score(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).score)
    labels = [r.label for r in test]
    return {"image_auroc": auroc(labels, scores), "image_auroc_ci": auroc_interval(labels, scores)}
