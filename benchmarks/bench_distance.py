"""The fused distance of several levels, and one distance map, against torch: equality first, then medians.

    python benchmarks/bench_distance.py [--threads 2]

Peers run in the same process, on the same tensors, with the same number of threads, each call in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from normscan import _native, ops

SIDE, SIGMA, IMAGES = 256, 4.0, 8
LEVELS = [(64, 64), (128, 32), (256, 16)]  # ResNet18's layers 1 to 3 at 256 pixels: channels, side


def gaussian_taps() -> Tensor:
    """The weights of `smooth`."""
    radius = int(4 * SIGMA + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / SIGMA) ** 2)
    return taps / taps.sum()


TAPS = gaussian_taps()


def mirrored(x: Tensor, radius: int) -> Tensor:
    """[N,1,H,W] with the edge pixel repeated at the edges, as `smooth` has it."""
    x = torch.cat([x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)], -1)
    return torch.cat([x[..., :radius, :].flip(-2), x, x[..., -radius:, :].flip(-2)], -2)


def in_torch(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Cosine, upsampling, product, blur, maximum from torch's parts."""
    fused = torch.ones((IMAGES, 1, SIDE, SIDE))
    for a, b in pairs:
        difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
        level = 0.5 * difference.square().sum(1, keepdim=True)
        fused = fused * F.interpolate(level, (SIDE, SIDE), mode="bilinear", align_corners=False)
    wide = mirrored(fused, len(TAPS) // 2)
    blurred = F.conv2d(F.conv2d(wide, TAPS.view(1, 1, -1, 1)), TAPS.view(1, 1, 1, -1))[:, 0]
    return blurred, blurred.amax((1, 2))


def fused(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The same in one call."""
    result: tuple[Tensor, Tensor] = ops.distance(pairs, metric="cosine", size=(SIDE, SIDE), blur=SIGMA)
    return result


def one_map(a: Tensor, b: Tensor) -> Tensor:
    """The cosine distance of one level."""
    result: Tensor = ops.distance_map(a, b, metric="cosine")
    return result


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float, float]]:
    """Quartiles in ms of every call, taken in turn, so that a busy machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: tuple(statistics.quantiles(t, n=4)) for name, t in times.items()}  # type: ignore[misc]


def show(title: str, calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Print one case; the first call is ours. Returns the medians."""
    found = medians(calls, repeats)
    ours = next(iter(found.values()))[1]
    print(f"\n{title}")
    for name, (low, middle, high) in found.items():
        print(f"  {name:28} {middle:8.2f} ms  ({low:.2f} .. {high:.2f})  {middle / ours:6.1f} x")
    return {name: middle for name, (_, middle, _) in found.items()}


def bench_levels(compiled: Callable[..., Any], repeats: int, channels_last: bool) -> None:
    """The fused form over ResNet18's levels."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shapes = [(IMAGES, channels, side, side) for channels, side in LEVELS]
    pairs = [(torch.randn(s).to(memory_format=layout), torch.randn(s).to(memory_format=layout)) for s in shapes]
    for found, expected in zip(fused(pairs), in_torch(pairs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    calls = {
        "normscan": lambda: fused(pairs),
        "torch eager": lambda: in_torch(pairs),
        "torch.compile": lambda: compiled(pairs),
    }
    name = "channels_last" if channels_last else "contiguous"
    show(f"levels of ResNet18, N {IMAGES}, {SIDE} px: cosine, upsample, product, blur, max; {name}", calls, repeats)


def bench_map(repeats: int, channels_last: bool) -> None:
    """One cosine map, and its share of the bandwidth of a copy."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    a, b = (torch.randn(IMAGES, 256, 64, 64).to(memory_format=layout) for _ in "ab")
    torch.testing.assert_close(one_map(a, b), 1 - F.cosine_similarity(a, b, dim=1), rtol=1e-5, atol=1e-5)
    target = torch.empty_like(a)
    calls = {
        "normscan": lambda: one_map(a, b),
        "F.cosine_similarity": lambda: F.cosine_similarity(a, b, dim=1),
        "copy of as many bytes": lambda: target.copy_(b),
    }
    name = "channels_last" if channels_last else "contiguous"
    found = show(f"cosine map of 8x256x64x64; {name}", calls, repeats)
    share = found["copy of as many bytes"] / found["normscan"]  # both move two tensors of this size
    print(f"  {2 * a.nbytes / found['normscan'] / 1e6:.1f} GB/s, {share:.2f} of the copy's")


def main() -> None:
    """Print every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=25)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {_native.simd_level()}, torch {torch.__version__}")
    with torch.no_grad():
        for channels_last in (False, True):
            bench_levels(torch.compile(in_torch), arguments.repeats, channels_last)
            bench_map(arguments.repeats, channels_last)


if __name__ == "__main__":
    main()
