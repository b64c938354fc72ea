"""Hops 2 to 5 of a batch on a GPU: one upload, prepare, engine, scorer and restore on one stream, one download.

A batch is under way in a `Lane`, which has a stream, an execution context and memory of its own; while one computes,
the next is staged and uploaded in another. A batch like one before (as many pictures, of the same sizes) is replayed
from a CUDA graph. It needs no torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from normscan.deploy.engines.device import Buffers, Graph, check
from normscan.deploy.engines.tensorrt import Execution, TensorRtEngine
from normscan.deploy.hops import Hops
from normscan.deploy.pipeline import Prepared, Scored
from normscan.errors import DeviceError
from normscan.scoring.scorer import Scorer

PLANS = 16
"""Kinds of batches a lane remembers."""
_ALIGNED = 256
_FLOAT, _DOUBLE = 4, 8


class GpuPipeline:
    """Every hop on the engine's GPU."""

    depth = 2

    def __init__(self, engine: TensorRtEngine, scorer: Scorer) -> None:
        self._engine, self._scorer = engine, scorer
        self._idle: list[Lane] = []
        self._lock = threading.Lock()

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Nothing but contiguous rows: the rest is done on the GPU."""
        return Prepared(np.ascontiguousarray(pixels), pixels.shape[:2])

    def submit(self, batch: Sequence[Prepared], hops: Hops) -> Callable[[], Scored]:
        """More pictures than the engine's largest batch go in parts, all but the last of which are waited for."""
        most = self._engine.batch[2]
        parts = [batch[i : i + most] for i in range(0, len(batch), most)]
        done = [self._begin(part, hops)() for part in parts[:-1]]
        last = self._begin(parts[-1], hops)
        if not done:
            return last
        return lambda: _joined([*done, last()])

    def _begin(self, batch: Sequence[Prepared], hops: Hops) -> Callable[[], Scored]:
        # Whoever waits for a lane while holding one could wait for ever: there are as many as batches under way.
        with self._lock:
            lane = self._idle.pop() if self._idle else None
        with hops("engine"):
            lane = lane or Lane(self._engine, self._scorer)
            lane.begin([pixels for pixels, _ in batch])  # one that fails is not used again

        def end() -> Scored:
            with hops("engine"):
                lane.wait()
            with hops("score"):
                found = lane.results()
            with self._lock:
                self._idle.append(lane)
            return found

        return end


def _joined(parts: Sequence[Scored]) -> Scored:
    scores, terms = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Scored(scores, terms, [one for part in parts for one in part.maps])


@dataclass
class _Plan:
    """A kind of batch: where everything of it lies, as tensors on the device."""

    upload: int
    """Bytes of all pixels."""
    places: list[slice]
    """Of each picture's bytes in it."""
    pictures: list[Any]
    inputs: list[Any]
    """x of each picture; the last again for every row that fills the batch up."""
    addresses: dict[str, int]
    """Of the engine's input and outputs."""
    outputs: dict[str, Any]
    maps: list[Any]
    all_maps: Any
    restored: list[Any]
    terms: Any
    scores: Any
    workspace: Any
    download: int
    found: list[tuple[int, type, tuple[int, ...]]]
    """Where in the download lie scores, terms and each restored map: begin, type, shape."""
    graph: Graph | None = None
    ran: bool = False


class Lane:
    """What one batch at a time needs on a GPU."""

    def __init__(self, engine: TensorRtEngine, scorer: Scorer) -> None:
        self._engine, self._scorer = engine, scorer
        self._buffers: Buffers = engine.buffers()
        self._execution: Execution = engine.execution()
        self._core = _core()
        self._ops = self._core.Stream(int(self._buffers.stream), device=engine.place.index)
        self._native = self._core.Scorer(scorer.spec.native().json(), scorer.stats)
        self._statistics = {name: self._stored(name, values) for name, values in self._native.statistics().items()}
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._current: _Plan | None = None
        self._count = 0
        self._graphs = True

    def _stored(self, name: str, values: np.ndarray) -> Any:
        there = self._buffers.upload(f"statistics {name}", values)
        self._buffers.wait()  # before the host's copy goes
        return self._core.View(there, values.shape, str(values.dtype))

    def begin(self, pictures: Sequence[np.ndarray]) -> None:
        """Put a batch on the stream; `wait`, then `results`, before the next."""
        check(self._buffers.cuda, "cudaSetDevice", self._engine.place.index)  # of this thread
        plan = self._plan(pictures)
        staged = self._buffers.pinned("pixels", plan.upload)
        for pixels, place in zip(pictures, plan.places, strict=True):
            staged[place] = pixels.reshape(-1).view(np.uint8)
        self._current = plan
        if plan.graph is not None:
            plan.graph.launch(self._buffers.stream)
        elif plan.ran and self._graphs:
            plan.graph = self._captured(plan)
        else:  # the first time: an engine prepares itself for new shapes, which is no part of a graph
            self._enqueue(plan)
            plan.ran = True

    def wait(self) -> None:
        """Until the batch is done."""
        self._buffers.wait()

    def results(self) -> Scored:
        """Of the batch that was waited for, in memory of its own."""
        assert self._current is not None
        held = self._buffers.pinned("results", self._current.download)
        scores, terms, *maps = [
            np.ndarray(shape, kind, held.data, offset=begin).copy() for begin, kind, shape in self._current.found
        ]
        return Scored(scores, terms, maps)

    def _captured(self, plan: _Plan) -> Graph | None:
        """The batch as a graph, launched; where the engine cannot be captured, it just runs, now and from here on."""
        try:
            graph = Graph.capture(self._buffers, lambda: self._enqueue(plan))
        except DeviceError:
            self._graphs = False
            self._enqueue(plan)
            return None
        graph.launch(self._buffers.stream)
        return graph

    def _enqueue(self, plan: _Plan) -> None:
        size, buffers = self._scorer.spec.input, self._buffers
        buffers.copy_up("pixels", plan.upload)
        for picture, x in zip([*plan.pictures, *plan.pictures[-1:] * len(plan.inputs)], plan.inputs, strict=False):
            self._ops.prepare(picture, x, resize=size.resize, mean=list(size.mean), std=list(size.std))
        self._execution.enqueue(int(buffers.stream), plan.addresses)
        self._ops.score(
            self._native,
            self._statistics,
            plan.outputs,
            plan.all_maps,
            plan.terms,
            plan.scores,
            workspace=plan.workspace,
        )
        for one, whole in zip(plan.maps, plan.restored, strict=True):
            self._ops.restore(one, whole, resize=size.resize)
        buffers.copy_down("results", plan.download)

    def _plan(self, pictures: Sequence[np.ndarray]) -> _Plan:
        key = tuple((pixels.shape, str(pixels.dtype)) for pixels in pictures)
        count = max(len(pictures), self._engine.batch[0])
        if count != self._count:
            # A graph is of the shapes that its context had, which may not be given others beside it (TensorRT's
            # developer guide, "CUDA Graphs").
            self._plans.clear()
            self._count = count
        if key not in self._plans:
            if len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            moved = self._buffers.moves
            plan = self._laid(pictures, count)
            if self._buffers.moves != moved:  # the others' addresses are no more
                self._plans.clear()
            self._plans[key] = plan
        return self._plans[key]

    def _laid(self, pictures: Sequence[np.ndarray], count: int) -> _Plan:
        """Room for a batch; `count` rows of x, of which the last may only fill it up."""
        view, size, n = self._core.View, self._scorer.spec.input, len(pictures)
        room = _Room()
        begins = [room.take(pixels.nbytes) for pixels in pictures]
        pixels_at = self._buffers.address("pixels", room.size)
        self._buffers.pinned("pixels", room.size)

        x_shape = (size.channels, size.height, size.width)
        x_at = self._buffers.address("x", _FLOAT * count * prod(x_shape))
        addresses, outputs = {"x": x_at}, {}
        for name, shape in self._execution.shapes((count, *x_shape)).items():
            addresses[name] = self._buffers.address(f"output {name}", _FLOAT * prod(shape))
            outputs[name] = view(addresses[name], (n, *shape[1:]), "float32")

        height, width = self._scorer.spec.map_shape
        maps_at = self._buffers.address("maps", _FLOAT * n * height * width)
        shapes: list[tuple[type, tuple[int, ...]]] = [
            (np.float64, (n,)),
            (np.float64, (n, len(self._scorer.spec.terms))),
            *((np.float32, pixels.shape[:2]) for pixels in pictures),
        ]
        results = _Room()
        found = [(results.take(prod(shape) * np.dtype(kind).itemsize), kind, shape) for kind, shape in shapes]
        results_at = self._buffers.address("results", results.size)
        self._buffers.pinned("results", results.size)
        scores, terms, *restored = (
            view(results_at + begin, shape, np.dtype(kind).name) for begin, kind, shape in found
        )
        needed = self._ops.score_workspace(self._native, outputs)
        return _Plan(
            upload=room.size,
            places=[slice(begin, begin + p.nbytes) for begin, p in zip(begins, pictures, strict=True)],
            pictures=[view(pixels_at + b, p.shape, str(p.dtype)) for b, p in zip(begins, pictures, strict=True)],
            inputs=[view(x_at + _FLOAT * i * prod(x_shape), x_shape, "float32") for i in range(count)],
            addresses=addresses,
            outputs=outputs,
            maps=[view(maps_at + _FLOAT * i * height * width, (height, width), "float32") for i in range(n)],
            all_maps=view(maps_at, (n, height, width), "float32"),
            restored=restored,
            terms=terms,
            scores=scores,
            workspace=view(self._buffers.address("workspace", needed), (needed,), "uint8"),
            download=results.size,
            found=found,
        )


class _Room:
    """Parts of one buffer, one after the other."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, size: int) -> int:
        """Where a part begins."""
        begin = -(-self.size // _ALIGNED) * _ALIGNED
        self.size = begin + size
        return begin


def _core() -> Any:
    """The native core for GPUs."""
    module = import_module("normscan._cuda")
    if not module.device_count():
        raise DeviceError(f"the native core finds no GPU: {module.why_none()}")
    return module
