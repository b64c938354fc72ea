"""Measure the native ops against their peers, print a table, and merge the records into results/<machine>.json."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the references and the table of tolerances live there

from records import results_file, store_records
from timing import EFFORTS, QUICK, Case, Measured, measure, set_threads

OPS = ("gaussian", "distance", "attention", "prepare", "resample", "smooth", "pool", "stain")


def main() -> int:
    """0, or 1 where a contender of ours is wrong: it prints no time."""
    options = arguments()
    if options.device == "cpu":
        set_threads(options.threads)
    effort = QUICK if options.quick else EFFORTS[options.device]
    measured = []
    for case in cases(options):
        measured.append(measure(case, effort))
        show(measured[-1])
        del case  # its arrays would otherwise lie in memory beside those of the next one
    if not (options.no_store or options.quick):
        path = results_file(options.device)
        store_records(measured, options.results / path.name if options.results else path)
    return int(any(m.failed for m in measured))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP", help="all by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where ours and the peers run (cpu)")
    parser.add_argument("--quick", action="store_true", help="the GPU's cases, tiny, on either device; stores nothing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for everybody, on the CPU")
    parser.add_argument("--no-store", action="store_true", help="leave the results file as it is")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="of the results file, instead of results/")
    options = parser.parse_args()
    if unknown := set(options.ops) - set(OPS):
        parser.error(f"no such op: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    options.ops = options.ops or OPS
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            parser.error(f"--device cuda: torch {torch.__version__} sees no CUDA device")
    return options


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Those of the CPU, or of the GPU (benchmarks/gpu)."""
    on_cpu = options.device == "cpu" and not options.quick
    for op in options.ops:
        if on_cpu:
            yield from importlib.import_module(f"bench_{op}").cases()
        else:
            from gpu.place import Place

            yield from importlib.import_module(f"gpu.{op}").cases(Place(options.device, options.quick))


def show(measured: Measured) -> None:
    """One case: a line a contender, and what was left out, and why."""
    case, goals = measured.case, {} if measured.effort is QUICK else measured.goals()
    ours, peers = measured.running(case.ours), measured.running(case.peers)
    print(f"\n{case.op}  {case.name}  {case.dtype}  {case.device}", end="    ")
    print(f"(copy {measured.copy_gbps:.1f} GB/s, matrix {measured.matrix_gflops:.0f} GFLOP/s)")
    line("", "ms", "q1", "q3", "GB/s", "of copy", "GFLOP/s", "of matrix", *[f"x {name}" for name in ours], "goal")
    for name in ours + peers:
        ratios = [f"{measured.times.ratio(impl, name):.2f}" if name in peers else "" for impl in ours]
        goal = ""
        if name in goals:
            met = measured.times.ratio(ours[0], name) >= goals[name]
            goal = f">= {goals[name]:g} {'met' if met else 'MISSED'}"
        if case.share is not None and measured.effort is not QUICK and [name] == ours[:1]:
            goal = f">= {case.share:.0%} of copy {'met' if measured.of_copy(name) >= case.share else 'MISSED'}"
        line(name, *figures(measured, name), *ratios, goal)
    if measured.extra_memory is not None:
        print(f"  first call of {case.ours[0].name}: {measured.extra_memory / 2**20:.1f} MiB beyond the outputs")
    for name, reason in measured.failed.items():
        print(f"  WRONG, not timed: {name}: {reason}")
    for name, reason in measured.left_out.items():
        print(f"  left out: {name}: {reason}")
    sys.stdout.flush()


def figures(measured: Measured, name: str) -> Iterable[str]:
    """Times, rates, and shares of the machine's own rates."""
    times = (measured.times.median(name), *measured.times.quartiles(name))
    gbps, gflops = measured.gbps(name), measured.gflops(name)
    shares = (f"{gbps / measured.copy_gbps:.0%}", f"{gflops / measured.matrix_gflops:.0%}")
    return (*[f"{t:.4g}" for t in times], f"{gbps:.3g}", shares[0], f"{gflops:.3g}", shares[1])


def line(name: str, *cells: str) -> None:
    """A name and columns, the last one left-aligned."""
    print(f"  {name:<13}", *[f"{cell:>9}" for cell in cells[:-1]], cells[-1])


if __name__ == "__main__":
    sys.exit(main())
