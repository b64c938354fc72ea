"""A session whose hops are all on a GPU against the same method in torch there, eager and compiled.

    python benchmarks/bench_gpu_session.py STFPM_RUN STFPM_BUNDLE... [--device cuda] [--batch 1 --batch 8]

Each takes decoded pictures, uint8 on the host, and gives scores and maps of the pictures' size on the host, in turns.
In torch: resized, normalised, student and teacher, distances of normalised features, maps enlarged and multiplied,
blurred, their maximum. Every engine that opens the bundle is measured; what one refuses is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import records
import torch
import torch.nn.functional as F

import normscan
from normscan.data.synthetic import dermoscopy
from normscan.errors import Error
from normscan.train.folder import Run

ROUNDS = 50
WARM = 10
SIDE = 512
ENGINES = {"cuda": ("tensorrt", "tensorrt-rtx", "onnxruntime"), "cpu": ("onnxruntime", "openvino")}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--device", default="cuda", choices=sorted(ENGINES))
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--results", type=Path, help="Folder for <gpu>.json; by default results/.")
    options = parser.parse_args()
    contenders: dict[str, Callable[[list[np.ndarray]], list[float]]] = {}
    for bundle in options.bundles:
        for engine in ENGINES[options.device]:
            try:
                session = normscan.load(bundle, engine=engine, device=options.device)
            except Error as error:
                print(f"{bundle.name} on {engine}: {error}")
                continue
            contenders[f"{bundle.stem} {engine}"] = of_session(session)
    plain = Plain(Run.open(options.run), options.device)
    contenders["torch eager"] = plain.score
    contenders["torch compiled"] = Plain(Run.open(options.run), options.device, compiled=True).score
    rows = [row for batch in options.batch or (1, 8) for row in measured(contenders, pictures(batch), options.device)]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.device == "cuda":
        path = records.results_file(options.device)
        records.store(options.results / path.name if options.results else path, gpu_session=rows)


def pictures(count: int) -> list[np.ndarray]:
    """Decoded, all of one size."""
    rng = np.random.default_rng(0)
    return [dermoscopy(rng, size=SIDE, abnormal=bool(i % 2))[0] for i in range(count)]


def of_session(session: normscan.Session) -> Callable[[list[np.ndarray]], list[float]]:
    """A contender."""
    return lambda given: [result.score for result in session.score(given)]


class Plain:
    """The method as it is written in torch."""

    def __init__(self, run: Run, device: str, *, compiled: bool = False) -> None:
        self.spec, self.device = run.spec, device
        self.network = run.network().to(device).eval()
        self.forward = torch.compile(self._forward) if compiled else self._forward
        sigma = self.spec.map.blur_sigma
        at = torch.arange(-round(4 * sigma), round(4 * sigma) + 1, device=device)
        self.kernel = torch.softmax(-(at**2) / (2 * sigma**2), 0)[None, None]

    @torch.inference_mode()
    def score(self, given: list[np.ndarray]) -> list[float]:
        """Of pictures of one size."""
        maps, scores = self.forward(torch.from_numpy(np.stack(given)).to(self.device))
        maps.cpu()
        return [float(score) for score in scores.cpu()]

    def _forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.spec.input
        shape, own = (size.height, size.width), pixels.shape[1:3]
        x = F.interpolate(pixels.permute(0, 3, 1, 2).float() / 255, shape, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (size.mean, size.std))
        found = self.network((x - mean) / std)._asdict()
        whole = torch.ones(len(x), 1, *shape, device=x.device)
        for term in self.spec.terms:
            a, b = (F.normalize(found[name], dim=1) for name in term.of)
            level = 0.5 * (a - b).square().sum(1, keepdim=True) / (term.scale or 1.0)
            whole = whole * F.interpolate(level, shape, mode="bilinear")
        half = self.kernel.shape[-1] // 2
        for kernel, pad in (
            (self.kernel[:, :, None], (half, half, 0, 0)),
            (self.kernel[..., None], (0, 0, half, half)),
        ):
            whole = F.conv2d(F.pad(whole, pad, mode="reflect"), kernel)
        return F.interpolate(whole, own, mode="bilinear")[:, 0], whole.amax((1, 2, 3))


def measured(
    contenders: dict[str, Callable[[list[np.ndarray]], list[float]]], given: list[np.ndarray], device: str
) -> list[dict[str, Any]]:
    """A row a contender, its time over that of torch eager in the same round."""
    first: dict[str, list[float]] = {name: score(given) for name, score in contenders.items()}
    for name, scores in first.items():  # equality before time: what is lowered, and the resizing, may differ a little
        ratio = np.array(scores) / np.array(first["torch eager"])
        assert 0.5 < ratio.min() <= ratio.max() < 2, (name, scores, first["torch eager"])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, score in contenders.items():
            started = time.perf_counter()
            score(given)
            seconds[name].append(time.perf_counter() - started)
    eager = seconds["torch eager"][WARM:]
    return [
        {
            "contender": name,
            "device": device,
            "batch": len(given),
            "ms": round(1e3 * statistics.median(taken[WARM:]), 3),
            "times_eager": round(statistics.median(e / t for e, t in zip(eager, taken[WARM:], strict=True)), 2),
        }
        for name, taken in seconds.items()
    ]


if __name__ == "__main__":
    main()
