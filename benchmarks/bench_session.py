"""Scoring a folder with a Session: memory over many pictures, speed, and scores at several batch sizes.

The peer, in the same run and with the same number of threads, is the plain loop that people write: OpenCV reads and
resizes one picture, ONNX Runtime runs it. It does not score, so that the ratio is what everything else costs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import records

import normscan
from normscan.data.read import write_image
from normscan.data.synthetic import dermoscopy
from normscan.progress import track

FIRST = 200
"""Pictures after which memory should have settled."""


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), options.images, options.side)
        row = measure(options.bundle, paths, options.threads)
    print(json.dumps(row, indent=2))
    records.store(session=row)


def make(folder: Path, count: int, side: int) -> list[Path]:
    """Write `count` different pictures."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:05}.png" for i in range(count)]
    for path in track(paths, "make pictures", count):
        write_image(path, dermoscopy(rng, size=side, abnormal=bool(rng.integers(2)))[0])
    return paths


def measure(bundle: Path, paths: list[Path], threads: int) -> dict[str, Any]:
    """One pass for each batch size; equality first, then time."""
    session = normscan.load(bundle, threads=threads)
    row: dict[str, Any] = {"images": len(paths), "threads": threads}
    scores: dict[int, np.ndarray] = {}
    for batch in (1, 7, 32):
        started, found, early = time.perf_counter(), [], 0.0
        for i, (_, result) in enumerate(session.stream(paths, batch_size=batch), start=1):
            assert isinstance(result, normscan.Result), result
            found.append(result.score)
            if i == FIRST:
                early = resident()
        row[f"images_per_second_batch_{batch}"] = round(len(paths) / (time.perf_counter() - started), 1)
        row[f"resident_growth_batch_{batch}"] = round(resident() / early - 1, 4)
        scores[batch] = np.asarray(found)
    worst = max(float(np.abs(scores[b] - scores[1]).max()) for b in (7, 32)) / session.spread
    assert worst < 1e-4, f"scores depend on the batch size by {worst} of the calibration spread"
    row["largest_score_difference_between_batches"] = worst
    row["plain_loop_images_per_second"] = round(plain_loop(bundle, paths, session.scorer.spec.input, threads), 1)
    row["ratio_to_plain_loop"] = round(row["images_per_second_batch_32"] / row["plain_loop_images_per_second"], 3)
    return row


def plain_loop(bundle: Path, paths: list[Path], size: Any, threads: int) -> float:
    """Images per second of the peer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    network = onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    started = time.perf_counter()
    for path in paths:
        pixels = cv2.resize(cv2.imread(str(path))[:, :, ::-1], (size.width, size.height), interpolation=cv2.INTER_AREA)
        network.run(None, {"x": pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255})
    return len(paths) / (time.perf_counter() - started)


def resident() -> float:
    """This process's resident memory, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


if __name__ == "__main__":
    main()
