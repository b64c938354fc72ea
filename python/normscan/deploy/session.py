"""Session: bundle and engine, ready to score. It needs no torch."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np

from normscan.data.read import in_range, read_image
from normscan.deploy.bundle import Bundle, is_bundle
from normscan.deploy.engines import ON_GPUS, Engine, open_engine
from normscan.deploy.hops import Hops
from normscan.deploy.pipeline import HostPipeline, Pipeline, Prepared, Scored
from normscan.errors import ArgumentError, ImageError, InputError, MissingExtraError
from normscan.files import canonical_json
from normscan.scoring.scorer import Scorer, prepare
from normscan.threads import processors, set_threads

T = TypeVar("T")
Image = str | os.PathLike[str] | np.ndarray
MOST_BATCH = 4096
MOST_WORKERS = 8
SEEN_DIGITS = 16
"""Hex digits of a content hash that a bundle keeps: 64 bits."""


@dataclass(frozen=True)
class Result:
    """What a session says of one picture."""

    score: float
    """Higher is more anomalous."""
    decision: bool | None
    """True: anomalous (score > threshold); None: the bundle has no threshold."""
    map: np.ndarray
    """[H,W] float32 in the picture's own geometry."""
    terms: tuple[float, ...]
    """Each term's pooled value, before scale and weight."""
    threshold: float | None


def identity(manifest: Mapping[str, Any]) -> str:
    """Of a training, from the manifest of its run or of a bundle of it: these agree, and two trainings do not."""
    hashes = manifest["training" if "training" in manifest else "data"]["sha256"]
    known = [manifest["family"], hashes, manifest["spread"], list(manifest["map_scale"])]
    return hashlib.sha256(canonical_json(known).encode()).hexdigest()


class Session:
    """Scores pictures; the same name and meaning in Python, C and C++."""

    def __init__(
        self, engine: Engine, scorer: Scorer, manifest: Mapping[str, Any], seen: Sequence[str], threads: int = 0
    ) -> None:
        self.engine, self.scorer = engine, scorer
        self.seen = frozenset(digest[:SEEN_DIGITS] for digest in seen)
        """Beginnings of the content hashes of the pictures that made the detector: none of them may test it."""
        self.spread: float = manifest["spread"]
        """Standard deviation of the calibration scores: the unit that tolerances are stated in."""
        self.map_scale: tuple[float, float] = tuple(manifest["map_scale"])
        """Where the colours of a map begin and end: set on calibration normals."""
        self._manifest = manifest
        self.threads = threads
        """That were asked for; 0: all cores."""
        self.hops = Hops()
        """Where the time of the last stream went."""
        self._pipeline = pipeline_of(engine, scorer)

    @property
    def identity(self) -> str:
        """Of the training: thresholds for patients are of one training's scores."""
        return identity(self._manifest)

    @classmethod
    def open(cls, path: str | Path, *, engine: str | None = None, device: str = "auto", threads: int = 0) -> Self:
        """Open a bundle (engine "onnxruntime", or what its precision was accepted on) or a run folder ("torch").

        threads 0: all cores. Errors: `BundleError`, `UsageError` (device, engine), `MissingExtraError`.
        """
        folder = Path(path)
        if threads:
            set_threads(threads)
        if is_bundle(folder):
            bundle = Bundle.open(folder)
            chosen = open_engine(engine or bundle.engine, bundle, device=device, threads=threads)
            return cls(chosen, bundle.scorer(), bundle.manifest, bundle.manifest["training"]["seen"], threads)
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist, expected a bundle or a run folder")
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "train")
        from normscan.train.folder import Run  # loads torch

        run = Run.open(folder)
        chosen = open_engine(engine or "torch", run, device=device, threads=threads)
        return cls(chosen, run.scorer(), run.manifest, run.seen(), threads)

    @overload
    def score(self, image: Image) -> Result: ...  # type: ignore[overload-overlap]  # a str is a sequence of str
    @overload
    def score(self, image: Sequence[Image]) -> list[Result]: ...
    def score(self, image: Image | Sequence[Image]) -> Result | list[Result]:
        """Score one picture or a batch.

        image  a path, or pixels [H,W] or [H,W,3] RGB (uint8, uint16, or float32 in 0..1), or a list of
               either, of any sizes. A picture that cannot be read or has non-finite pixels is an `ImageError` naming
               it.
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return self._score([self._read(item) for item in image])
        return self._score([self._read(image)])[0]  # type: ignore[arg-type]  # _read says what else it was

    def warm_up(self, batch_size: int = 1) -> None:
        """Score blank pictures of the network's size, so that the first real ones take no longer than the others."""
        size = self.scorer.spec.input
        blank = np.zeros((size.height, size.width, 3), np.uint8)
        for _ in range(3):  # on a GPU the first runs, the second is captured, the third is replayed
            self._score([self._read(blank)] * batch_size)

    def outputs(self, image: Image) -> dict[str, np.ndarray]:
        """The network's named outputs for one picture, without the batch: what the terms compare."""
        found = self.engine.run(prepare(self._pixels(image), self.scorer.spec.input)[None])
        return {name: value[0] for name, value in found.items()}

    def stream(
        self, paths: Iterable[Path], *, batch_size: int = 16, workers: int | None = None
    ) -> Iterator[tuple[Path, Result | InputError]]:
        """Score files in order, reading ahead of the engine; memory does not grow with their number.

        workers  threads that read and prepare, at most two batches ahead; by default the session's
                 threads, or the processors for this process, 8 at most

        A bad file gives its `InputError` in place of a result, and the others go on.
        """
        return self._stream(paths, self._read, *_checked_stream(batch_size, workers, self.threads))

    def stream_pixels(
        self, items: Iterable[T], read: Callable[[T], np.ndarray], *, batch_size: int = 16, workers: int | None = None
    ) -> Generator[tuple[T, Result | InputError], None, None]:
        """Score the pixels that `read` gives for each item, as `stream` does for files.

        `read` runs in `workers` threads, at most two batches ahead; none of them runs any more after `close()`.
        """

        def fetch(item: T) -> Prepared:
            with self.hops("read"):
                pixels = read(item)
            return self._read(pixels)

        return self._stream(items, fetch, *_checked_stream(batch_size, workers, self.threads))

    def _stream(
        self, items: Iterable[T], read: Callable[[T], Prepared], batch_size: int, workers: int
    ) -> Generator[tuple[T, Result | InputError], None, None]:
        self.hops = Hops()
        with ThreadPoolExecutor(workers, thread_name_prefix="normscan-read") as pool:
            todo = iter(items)
            waiting = deque((item, pool.submit(read, item)) for item in islice(todo, 2 * batch_size))
            under_way: deque[_Part[T]] = deque()
            try:
                while waiting or under_way:
                    if waiting:
                        part = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
                        waiting.extend((item, pool.submit(read, item)) for item in islice(todo, len(part)))
                        under_way.append(self._begin(part))
                    if not waiting or len(under_way) >= self._pipeline.depth:
                        yield from self._finish(under_way.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                for begun in under_way:
                    begun.end()

    def _begin(self, part: list[tuple[T, Future[Prepared]]]) -> _Part[T]:
        prepared: dict[int, Prepared] = {}
        failed: dict[int, InputError] = {}
        for i, (_, future) in enumerate(part):
            try:
                with self.hops("wait"):
                    prepared[i] = future.result()
            except InputError as error:
                failed[i] = error
        end = self._pipeline.submit(list(prepared.values()), self.hops) if prepared else _nothing
        return _Part([item for item, _ in part], prepared, failed, end)

    def _finish(self, part: _Part[T]) -> Iterator[tuple[T, Result | InputError]]:
        found = part.end()
        results: dict[int, Result | InputError] = {**part.failed}
        for row, i in enumerate(part.prepared):
            try:
                results[i] = self._result(found, row)
            except ImageError as error:
                results[i] = ImageError(f"{part.items[i]}: {error}")
        self.hops.pictures += len(part.prepared)
        yield from ((item, results[i]) for i, item in enumerate(part.items))

    def _read(self, image: Image) -> Prepared:
        """Hops 1 and 2."""
        pixels = self._pixels(image)
        with self.hops("prepare"):
            return self._pipeline.prepare(pixels)

    def _pixels(self, image: Image) -> np.ndarray:
        """Hop 1: [H,W] or [H,W,3]."""
        if isinstance(image, str | os.PathLike):
            with self.hops("read"):
                return read_image(Path(image))
        if isinstance(image, np.ndarray):
            return in_range(image)
        raise ArgumentError(f"found {type(image).__name__}; expected a path, a numpy array, or a list of either")

    def _score(self, items: Sequence[Prepared]) -> list[Result]:
        """Hops 3 to 5."""
        if not items:
            return []
        found = self._pipeline.submit(items, self.hops)()
        self.hops.pictures += len(items)
        return [self._result(found, row) for row in range(len(items))]

    def _result(self, found: Scored, row: int) -> Result:
        calibration = self.scorer.spec.calibration
        return Result(
            score=float(found.scores[row]),
            decision=self.scorer.decide(found.scores[row]),
            map=found.maps[row],
            terms=tuple(found.terms[row].tolist()),
            threshold=None if calibration is None else calibration.threshold,
        )


@dataclass(frozen=True)
class _Part(Generic[T]):
    """A batch of a stream, under way."""

    items: list[T]
    prepared: dict[int, Prepared]
    failed: dict[int, InputError]
    """By their places among the items, as the prepared ones."""
    end: Callable[[], Scored]


def _nothing() -> Scored:
    return Scored(np.empty(0), np.empty((0, 0)), [])


def _checked_stream(batch_size: int, workers: int | None, threads: int) -> tuple[int, int]:
    if workers is None:
        workers = min(threads or processors(), MOST_WORKERS)
    if not 1 <= batch_size <= MOST_BATCH or workers < 1:
        raise ArgumentError(
            f"stream: batch_size {batch_size}, workers {workers}; expected 1 to {MOST_BATCH}, and at least 1"
        )
    return batch_size, workers


def pipeline_of(engine: Engine, scorer: Scorer) -> Pipeline:
    """On the GPU where the engine is, if the native core was built for one; else on the host."""
    if engine.name in ON_GPUS and find_spec("normscan._cuda") is not None:
        gpu: Pipeline = import_module("normscan.deploy.gpu_pipeline").GpuPipeline(engine, scorer)
        return gpu
    return HostPipeline(engine, scorer)


def load(path: str | Path, *, engine: str | None = None, device: str = "auto", threads: int = 0) -> Session:
    """Open a bundle or a run folder for scoring; see `Session.open`."""
    return Session.open(path, engine=engine, device=device, threads=threads)
