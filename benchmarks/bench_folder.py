"""A folder of large JPEGs: a session's stream against the loop that people write; what a session adds to its network.

    python benchmarks/bench_folder.py STFPM_BUNDLE [LOWERED_BUNDLE...] [--images 1000] [--side 1024]

The first bundle is in float32: on ONNX Runtime and OpenVINO, and on ONNX Runtime in the peer's loop; the others, in
lower precisions, run on the engines that accepted them. The peer reads with OpenCV, resizes, runs ONNX Runtime and
scores in numpy and OpenCV: channel-normalised features, maps enlarged and multiplied, blurred, their maximum. All go
through the same files in turns, with as many threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import records

import normscan
from normscan.data.synthetic import dermoscopy
from normscan.deploy.bundle import Bundle
from normscan.deploy.session import Session
from normscan.progress import track

ROUNDS = 3


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), options.images, options.side)
        rows = folders(options.bundles, paths, options.threads)
    for batch in (1, 8):
        rows.append(overhead(options.bundles[0], batch, options.threads))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    records.store(folder=rows)


def make(folder: Path, count: int, side: int) -> list[Path]:
    """Different pictures, as JPEG: 16 lesions, each with other noise."""
    rng = np.random.default_rng(0)
    drawn = [dermoscopy(rng, size=256, abnormal=bool(i % 2))[0] for i in range(16)]
    large = [cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC) for pixels in drawn]
    paths = [folder / f"{i:05}.jpg" for i in range(count)]
    for i, path in enumerate(track(paths, "make pictures", count)):
        grain = rng.integers(0, 12, (side, side, 1), np.uint8)
        pixels = np.minimum(large[i % len(large)], 255 - grain) + grain
        cv2.imwrite(str(path), pixels[:, :, ::-1])
    return paths


def folders(bundles: list[Path], paths: list[Path], threads: int) -> list[dict[str, Any]]:
    """Images a second of each engine's stream and of the plain loop, in turns."""
    whole, *lowered = (Bundle.open(path) for path in bundles)
    chosen = [(whole, "onnxruntime"), (whole, "openvino"), *((bundle, bundle.engine) for bundle in lowered)]
    sessions = {
        f"{bundle.precision} {engine}": normscan.load(bundle.folder, engine=engine, threads=threads)
        for bundle, engine in chosen
    }
    plain = Plain(bundles[0], threads)
    for session in sessions.values():
        check(session, plain, paths[:8])
    seconds: dict[str, list[float]] = {name: [] for name in (*sessions, "plain")}
    limits = {}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            started = time.perf_counter()
            for _, result in session.stream(paths, batch_size=8):
                assert isinstance(result, normscan.Result), result
            seconds[name].append(time.perf_counter() - started)
            limits[name] = session.hops.limit
        started = time.perf_counter()
        for path in paths:
            plain.score(path)
        seconds["plain"].append(time.perf_counter() - started)
    return [
        {
            "what": "folder",
            "engine": name,
            "images": len(paths),
            "threads": threads,
            "images_per_second": round(len(paths) / statistics.median(seconds[name]), 1),
            "limit": limits.get(name, ""),
            "times_plain": round(
                statistics.median(p / s for p, s in zip(seconds["plain"], seconds[name], strict=True)), 3
            ),
        }
        for name in seconds
    ]


def check(session: Session, plain: Plain, paths: list[Path]) -> None:
    """Equality before time: both rank and nearly measure alike; the peer resizes without antialiasing."""
    ours, theirs = [session.score(path).score for path in paths], [plain.score(path) for path in paths]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9, (ours, theirs)


class Plain:
    """What people write for a student and a teacher."""

    def __init__(self, bundle: Path, threads: int, *, spinning: bool = True) -> None:
        """`spinning`: as ONNX Runtime does by itself; its threads then take the cores from whatever runs after it."""
        opened = Bundle.open(bundle)
        self.spec = opened.spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self.network = onnxruntime.InferenceSession(opened.model, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.network.get_outputs()]

    def score(self, path: Path) -> float:
        """One picture."""
        size = self.spec.input
        pixels = cv2.resize(cv2.imread(str(path))[:, :, ::-1], (size.width, size.height), interpolation=cv2.INTER_AREA)
        x = (pixels.astype(np.float32) / 255 - np.float32(size.mean)) / np.float32(size.std)
        found = dict(zip(self.names, self.network.run(None, {"x": x.transpose(2, 0, 1)[None]}), strict=True))
        whole = np.ones((size.height, size.width), np.float32)
        for term in self.spec.terms:
            a, b = (v / np.linalg.norm(v, axis=0, keepdims=True) for v in (found[name][0] for name in term.of))
            level = 0.5 * np.square(a - b).sum(axis=0)
            whole *= cv2.resize(level, (size.width, size.height), interpolation=cv2.INTER_LINEAR)
        return float(cv2.GaussianBlur(whole, (0, 0), self.spec.map.blur_sigma or 1e-3).max())


def overhead(bundle: Path, batch: int, threads: int) -> dict[str, Any]:
    """A session's whole call, decoded pictures of the input's size in, over ONNX Runtime's network alone; in turns."""
    session, plain = normscan.load(bundle, threads=threads), Plain(bundle, threads, spinning=False)
    size = session.scorer.spec.input
    rng = np.random.default_rng(0)
    pixels = [dermoscopy(rng, size=max(size.height, size.width), abnormal=bool(i % 2))[0] for i in range(batch)]
    x = rng.normal(size=(batch, size.channels, size.height, size.width)).astype(np.float32)
    whole, network = [], []
    for _ in range(60):
        started = time.perf_counter()
        session.score(pixels)
        between = time.perf_counter()
        plain.network.run(None, {"x": x})
        whole.append(between - started)
        network.append(time.perf_counter() - between)
    return {
        "what": "session over network",
        "batch": batch,
        "threads": threads,
        "session_ms": round(1e3 * statistics.median(whole[10:]), 2),
        "network_ms": round(1e3 * statistics.median(network[10:]), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(whole[10:], network[10:], strict=True)), 3),
    }


if __name__ == "__main__":
    main()
