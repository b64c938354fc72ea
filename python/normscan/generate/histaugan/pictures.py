"""Pictures as the networks see them, and the draws of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from normscan.data.read import read_image
from normscan.errors import ImageError
from normscan.generate.histaugan.config import STRIDE, HistauganConfig
from normscan.generate.histaugan.domains import Domain
from normscan.scoring.scorer import prepare
from normscan.scoring.spec import Input

CACHE_BYTES = 1 << 30


class Pictures:
    """Pictures by path, brought to size once, as bytes; those beyond `CACHE_BYTES` are read again."""

    def __init__(self, config: HistauganConfig) -> None:
        self.config = config
        self._kept: dict[Path, Tensor] = {}
        self._room = CACHE_BYTES

    def __getitem__(self, path: Path) -> Tensor:
        """[C,H,W] float32 in -1..1; the shorter side is the configured size, the other a multiple of 4."""
        kept = self._kept.get(path)
        if kept is None:
            kept = torch.from_numpy(np.rint(sized(path, self.config) * 255.0).astype(np.uint8))
            if kept.nbytes <= self._room:
                self._room -= kept.nbytes
                self._kept[path] = kept
        return kept / 127.5 - 1.0


def sized(path: Path, config: HistauganConfig) -> np.ndarray:
    """Read a picture and bring it to size -> [C,H,W] float32 in 0..1."""
    pixels = read_image(path)
    if min(pixels.shape[:2]) < STRIDE:
        raise ImageError(f"{path}: {pixels.shape[1]} x {pixels.shape[0]} pixels, expected at least {STRIDE} a side")
    scale = config.size / min(pixels.shape[:2])
    height, width = (STRIDE * round(side * scale / STRIDE) for side in pixels.shape[:2])
    unchanged = {"mean": (0.0,) * config.channels, "std": (1.0,) * config.channels}
    return prepare(pixels, Input(height, width, config.channels, "stretch", **unchanged))


def draws(pictures: Pictures, domains: Sequence[Domain], *, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches: crops [N,C,S,S] in -1..1 and their domains [N,K] one-hot; seeded by (seed, epoch).

    Each draw takes a domain by its share, then any of its pictures, so that a small domain is not forgotten.
    """
    config = pictures.config
    rng = np.random.default_rng([config.seed, epoch])
    shares = np.array([domain.share for domain in domains])
    for _ in range(steps(domains, config)):
        chosen = rng.choice(len(domains), size=config.batch_size, p=shares / shares.sum())
        paths = [domains[k].paths[int(rng.integers(len(domains[k].paths)))] for k in chosen]
        yield torch.stack([_crop(pictures[path], config, rng) for path in paths]), one_hot(chosen, len(domains))


def steps(domains: Sequence[Domain], config: HistauganConfig) -> int:
    """Batches of an epoch: as many draws as there are pictures."""
    return max(1, sum(len(domain.paths) for domain in domains) // config.batch_size)


def one_hot(index: Sequence[int] | np.ndarray, count: int) -> Tensor:
    """[N] -> [N,count] float32."""
    return torch.eye(count)[torch.from_numpy(np.asarray(index, np.int64))]


def _crop(x: Tensor, config: HistauganConfig, rng: np.random.Generator) -> Tensor:
    top, left = (int(rng.integers(side - config.crop + 1)) for side in x.shape[1:])
    crop = x[:, top : top + config.crop, left : left + config.crop]
    return crop.flip(2) if config.flip and rng.random() < 0.5 else crop
