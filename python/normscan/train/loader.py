"""From records to batches: decoded once, augmented and prepared by threads ahead of the training step."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from normscan.data.augment import augment, sample_rng
from normscan.data.pseudo import MAKERS
from normscan.data.read import read_image
from normscan.data.sample import Record
from normscan.errors import ImageError
from normscan.scoring.scorer import prepare
from normscan.scoring.spec import Input

CACHE_BYTES = 1 << 30
SMALLEST = 8
"""Pixels a side: no anomaly can be planted in less."""
GREY = 0.02
"""Share of the range by which channels differ at most where a picture has no colour; JPEG leaves a level or two."""
AHEAD = 3
"""Batches in preparation while one is in use."""

Make = Callable[[int], np.ndarray]


class Pictures:
    """Decoded pixels by index; those that fit in `CACHE_BYTES` are kept, the others are read again."""

    def __init__(self, records: Sequence[Record], *, smallest: int = SMALLEST) -> None:
        self.records, self.smallest = tuple(records), max(smallest, SMALLEST)
        self._kept: dict[int, np.ndarray] = {}
        self._room = CACHE_BYTES

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:
        if (pixels := self._kept.get(index)) is None:
            path = self.records[index].path
            pixels = read_image(path)
            if min(pixels.shape[:2]) < self.smallest:
                raise ImageError(
                    f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, expected at least {self.smallest} a side to "
                    "learn"
                )
            if pixels.nbytes <= self._room:
                self._room -= pixels.nbytes
                self._kept[index] = pixels
        return pixels


def is_grey(pixels: np.ndarray) -> bool | None:
    """Whether a decoded picture has no colour, however many channels it is stored in; None: it shows nothing at all."""
    span = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    part = pixels[::2, ::2].astype(np.float32)
    if np.ptp(part, axis=(0, 1)).max() <= GREY * span:
        return None
    return pixels.ndim == 2 or bool(np.quantile(np.ptp(part, axis=2), 0.99) <= GREY * span)


def check_colours(normals: Pictures, unlabelled: Pictures) -> None:
    """Raise an `InputError` where some are grey and others coloured: that, and no anomaly, would then be learnt."""
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for pictures in (normals, unlabelled):
        for i, record in enumerate(pictures.records):
            if (grey := is_grey(pictures[i])) is not None:
                kinds[grey].append(record.path)
    if all(kinds.values()):
        few, many = sorted(kinds, key=lambda kind: len(kinds[kind]))
        names = {True: "grey", False: "in colour"}
        raise ImageError(
            f"{kinds[few][0]}: {names[few]}, as {len(kinds[few])} of {len(kinds[few]) + len(kinds[many])} normal and "
            f"unlabelled pictures are, and the others are {names[many]}; expected one kind, for a critic tells them "
            "apart by that: convert or remove some, or take all as grey with --set channels=1"
        )


def plain(pictures: Pictures, size: Input) -> Make:
    """The picture as scoring sees it."""
    return lambda index: prepare(pictures[index], size)


def augmented(pictures: Pictures, size: Input, *, seed: int, epoch: int, augmentation: dict[str, Any]) -> Make:
    """The picture as training sees it; seeded by (seed, epoch, index), whichever thread makes it."""

    def make(index: int) -> np.ndarray:
        return prepare(augment(pictures[index % len(pictures)], sample_rng(seed, epoch, index), **augmentation), size)

    return make


def planted(pictures: Pictures, size: Input, *, seed: int, plant: str = "mixed") -> Make:
    """The picture with a planted anomaly, its donor another picture of the same list; beyond its end, with others.

    `plant` names who makes it, one of `data.pseudo.MAKERS`.
    """
    maker = MAKERS[plant]

    def make(index: int) -> np.ndarray:
        rng = sample_rng(seed, -1, index)
        picture = index % len(pictures)
        donor = (picture + 1 + int(rng.integers(max(len(pictures) - 1, 1)))) % len(pictures)
        return prepare(maker(*alike(pictures[picture], pictures[donor]), rng)[0], size)

    return make


def alike(pixels: np.ndarray, donor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as they are, or, where one is grey or deeper and the other is not, as float32 RGB in 0..1."""
    if pixels.dtype == donor.dtype and pixels.ndim == donor.ndim:
        return pixels, donor
    whole = [prepare(p, Input(p.shape[0], p.shape[1], resize="stretch")).transpose(1, 2, 0) for p in (pixels, donor)]
    return np.ascontiguousarray(whole[0]), np.ascontiguousarray(whole[1])


def epoch_order(count: int, *, seed: int, epoch: int, length: int | None = None) -> np.ndarray:
    """The order of an epoch: a permutation that depends on nothing else.

    An epoch of another `length` is cut from one permutation after the other. In the p-th, p x `count` is added to an
    index, so that a picture that comes again is augmented anew.
    """
    rng = np.random.default_rng([seed, epoch])
    passes = 1 if length is None else -(-length // count)
    return np.concatenate([rng.permutation(count) + p * count for p in range(passes)])[:length]


def unlabelled_seed(seed: int) -> int:
    """Of the unlabelled pictures' order and augmentation, which have nothing to do with those of the others."""
    return int.from_bytes(hashlib.blake2b(f"unlabelled/{seed}".encode(), digest_size=8).digest(), "little")


def batches(
    make: Make, order: Sequence[int] | np.ndarray, batch_size: int, *, workers: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (x [N,C,H,W] float32, index [N]) in the given order, the next batches being made meanwhile."""
    parts = [np.asarray(order[i : i + batch_size]) for i in range(0, len(order), batch_size)]
    with ThreadPoolExecutor(workers, thread_name_prefix="normscan-load") as pool:
        waiting: deque[tuple[np.ndarray, list[Future[np.ndarray]]]] = deque()
        try:
            for part in parts:
                waiting.append((part, [pool.submit(make, int(index)) for index in part]))
                if len(waiting) > AHEAD:
                    yield _ready(*waiting.popleft())
            while waiting:
                yield _ready(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ready(part: np.ndarray, futures: list[Future[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([future.result() for future in futures]), part
