"""Scoring with a Session: what each hop of one picture takes; memory, speed and scores over a folder of many.

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
from normscan.scoring.scorer import prepare

KEY = ("family", "terms", "engine", "threads")
"""What makes a row of hops the same measurement, done again."""
ROUNDS = 100
FIRST = 200
"""Pictures after which memory should have settled."""


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hops", action="store_true", help="only the hops of one picture of the input's size")
    options = parser.parse_args()
    if options.hops:
        found = hops(options.bundle, options.threads)
        print(json.dumps(found, indent=2))
        kept = [r for r in records.stored().get("hops", []) if [r[k] for k in KEY] != [found[k] for k in KEY]]
        records.store(hops=[*kept, found])
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), options.images, options.side)
        row = measure(options.bundle, paths, options.threads)
    print(json.dumps(row, indent=2))
    records.store(session=row)


def hops(bundle: Path, threads: int) -> dict[str, Any]:
    """Median times of hops 2 to 5 for one decoded picture of the input's size, and what is not network over it."""
    session = normscan.load(bundle, threads=threads)
    spec = session.scorer.spec
    rng = np.random.default_rng(0)
    side = max(spec.input.height, spec.input.width)
    taken: list[list[float]] = []
    for i in track(range(ROUNDS + 10), "hops", ROUNDS + 10):
        pixels = dermoscopy(rng, size=side, abnormal=i % 2 == 0)[0]
        marks = [time.perf_counter()]
        x = prepare(pixels, spec.input)[None]
        marks.append(time.perf_counter())
        outputs = session.engine.run(x)
        marks.append(time.perf_counter())
        scores = session.scorer.score(outputs)
        marks.append(time.perf_counter())
        session.scorer.restore(scores.maps[0], pixels.shape)
        marks.append(time.perf_counter())
        taken.append(np.diff(marks).tolist())
    names = ("prepare_ms", "network_ms", "score_ms", "restore_ms")
    medians = dict(zip(names, (np.median(taken[10:], axis=0) * 1e3).round(3).tolist(), strict=True))
    rest = sum(ms for name, ms in medians.items() if name != "network_ms")
    return {
        "family": spec.family,
        "terms": " ".join(term.op for term in spec.terms),
        "engine": session.engine.name,
        "threads": threads,
        "side": side,
        **medians,
        "all_but_network_over_network": round(rest / medians["network_ms"], 4),
    }


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
