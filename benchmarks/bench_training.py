"""A family's training step under several configurations: milliseconds an image, parameters, and both as ratios.

    python benchmarks/bench_training.py sepiad --variant gate=null --variant precision=bfloat16,compile=true

    python benchmarks/bench_training.py sagan --straightforward

The base configuration and the variants take turns, so that a machine that slows down slows all of them. Pictures are
noise, weights random: neither changes what a step costs. With `--straightforward`, the step without its economies is a
variant too, where tests/reference/FAMILY.py has one (the family's tests show that both are equal).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import records
import torch

from normscan.cli.common import parse_overrides
from normscan.families import Batch, family
from normscan.progress import track
from normscan.train.precision import resolve_precision

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the straightforward steps live there
PLAIN = "straightforward"


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", action="append", default=[], help="of the base and all variants: --set size=128")
    parser.add_argument("--variant", action="append", default=[], help="fields that differ: gate=null,size=64")
    parser.add_argument("--straightforward", action="store_true", help="also the step of tests/reference/FAMILY.py")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2, help="of a round: as many as make a whole, where steps differ")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rows = measure(options, ["", *options.variant, *([PLAIN] if options.straightforward else [])])
    path = records.results_file(options.device)
    kept = [r for r in records.stored(path).get("training", []) if key(r) not in {key(row) for row in rows}]
    records.store(path, training=[*kept, *rows])
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a row the same measurement, done again."""
    return tuple(row[name] for name in ("family", "preset", "set", "variant"))


def measure(options: argparse.Namespace, variants: list[str]) -> list[dict[str, Any]]:
    """A row for each variant; the first is the base that ratios are against."""
    steps = [prepared(options, variant) for variant in variants]
    taken: list[list[float]] = [[] for _ in steps]
    for i in track(range(options.rounds + 2), "rounds", options.rounds + 2, unit="rounds"):
        for (step, _, images), times in zip(steps, taken, strict=True):
            started = time.perf_counter()
            step()
            if i >= 2:
                times.append((time.perf_counter() - started) * 1e3 / images)
    parameters = steps[0][1]
    return [
        {
            "family": options.family,
            "preset": options.preset,
            "set": ",".join(options.set),
            "variant": variant,
            "threads": torch.get_num_threads(),
            "ms_an_image": round(statistics.median(times), 3),
            "time_ratio": round(statistics.median(a / b for a, b in zip(times, taken[0], strict=True)), 3),
            "parameters": count,
            "parameters_ratio": round(count / parameters, 4),
        }
        for variant, (_, count, _), times in zip(variants, steps, taken, strict=True)
    ]


def prepared(options: argparse.Namespace, variant: str) -> tuple[Callable[[], None], int, int]:
    """(what a round takes the time of, trained parameters, images in it)."""
    card = family(options.family)
    plain = variant == PLAIN
    fields = parse_overrides([*options.set, *(variant.split(",") if variant and not plain else [])])
    random = {"weights": "random"} if "weights" in card.config.model_fields else {}
    config = card.config.preset(options.preset, {**random, **fields})
    torch.manual_seed(config.seed)
    network = card.network(config).to(options.device)
    make = import_module(f"reference.{card.name}").STEP if plain else card.stages[-1]
    step = make(network.to(memory_format=torch.channels_last), config)
    size = card.spec(config).input
    x = torch.randn(config.batch_size, size.channels, size.height, size.width, device=options.device)
    count = len(x)
    batch = Batch(
        x.to(memory_format=torch.channels_last),
        torch.zeros(count, device=options.device),
        torch.ones(count, device=options.device),
        torch.arange(count, device=options.device),
        ("ok",) * count,
        unlabelled=x.flip(0) if step.schedule.unlabelled else None,
    )
    step.begin_epoch([batch])
    precision = resolve_precision(config.precision, x.device)

    def run() -> None:
        for _ in range(options.steps):
            network.train()
            with torch.autocast(options.device, precision, enabled=precision != torch.float32):
                step.step(batch)
        if options.device != "cpu":
            torch.cuda.synchronize()

    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return run, trained, options.steps * count


if __name__ == "__main__":
    main()
