"""Scoring whole slides of two sizes: peak memory, which must not grow with the slide, and tiles per second.

Each slide is a tiled pyramidal TIFF made tile by tile, and is scored by `normscan score` in a process of its own. A
session's part of the time includes starting; the larger the slide, the less that matters.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import records
import tifffile

TILE = 512
LEVELS = (1, 4, 16)
MOST_MIB = 1500
"""Peak resident memory, whatever the size of the slide."""
NEAR = 1.25
"""The largest slide's peak over the smallest's."""


def main() -> None:
    """Measure, print, store; fails where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="default: a tiny stfpm of 256 pixels, trained here in seconds")
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 20000])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for the slides and what was found; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = options.bundle or tiny(folder)
        rows = [measure(bundle, make(folder / f"{side}.tif", side), options.threads) for side in options.sides]
        spec = json.loads((bundle / "manifest.json").read_text("utf-8"))["spec"]
    found = {"family": spec["family"], "input": spec["input"]["width"], "threads": options.threads, "slides": rows}
    print(json.dumps(found, indent=2))
    peaks = [row["peak_mib"] for row in rows]
    assert max(peaks) < MOST_MIB, f"peak of {max(peaks)} MiB, expected less than {MOST_MIB}"
    assert peaks[-1] < NEAR * peaks[0], f"the peak grows with the slide: {peaks} MiB"
    records.store(slides=found)


def tiny(folder: Path) -> Path:
    """The bundle of a detector with few channels; needs the extra `export`."""
    from normscan.data.synthetic import write_demo
    from normscan.deploy.export import export
    from normscan.families import family
    from normscan.train import train

    write_demo(folder / "pictures", seed=3, size=256, train=48, test_normal=2, test_abnormal=2)
    train("stfpm", folder / "pictures", folder / "run", preset="paper", overrides={**family("stfpm").tiny, "size": 256})
    return export(folder / "run", folder / "stfpm.normscan").folder


def make(path: Path, side: int) -> Path:
    """Write a square slide of 0.5 um/px with two pieces of tissue; holds one tile at a time."""
    rng = np.random.default_rng(0)
    texture = rng.integers(-24, 25, (1024, 1024, 1), dtype=np.int16)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in LEVELS:
            size = side // factor
            file.write(
                tiles(size, factor, side, texture),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="deflate",
                subfiletype=int(factor > 1),
                resolution=(2e4 / factor, 2e4 / factor),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def tiles(size: int, factor: int, side: int, texture: np.ndarray) -> Iterator[bytes]:
    """The compressed tiles of one level, row by row."""
    for top in range(0, size, TILE):
        for left in range(0, size, TILE):
            y, x = np.mgrid[top : top + TILE, left : left + TILE] * (factor / side)
            inside = ((x - 0.36) / 0.3) ** 2 + ((y - 0.4) / 0.33) ** 2 < 1
            inside |= ((x - 0.78) / 0.17) ** 2 + ((y - 0.7) / 0.24) ** 2 < 1
            place = np.arange(TILE) * factor
            rows, columns = ((start * factor + place) % 1024 for start in (top, left))
            stain = np.array((205, 130, 170), np.int16) + texture[rows[:, None], columns]
            pixels = np.where(inside[..., None], stain, np.int16(243)).astype(np.uint8)
            yield zlib.compress(pixels.tobytes(), 1)


def measure(bundle: Path, slide: Path, threads: int) -> dict[str, Any]:
    """Score one slide in a process of its own."""
    output = slide.with_suffix("")
    command = [sys.executable, "-m", "normscan", "score", bundle, "-i", slide, "-o", output, "--force"]
    started = time.perf_counter()
    child = subprocess.Popen([*map(str, command), "--threads", str(threads)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    assert child.returncode == 0, f"scoring {slide} ended with {child.returncode}"
    with (output / "slides" / f"{slide.name}.tiles.csv").open(encoding="utf-8") as file:
        count = sum(1 for _ in csv.DictReader(file))
    return {
        "side": int(slide.stem),
        "tiles": count,
        "seconds": round(seconds, 1),
        "tiles_per_second": round(count / seconds, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main()
