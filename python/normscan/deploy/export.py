"""Export: from a run to a bundle that has proved itself. One that disagrees with torch is never left behind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from normscan import __version__
from normscan.deploy.acceptance import Truth
from normscan.deploy.bundle import PRECISIONS, Bundle, is_bundle_only, write_manifest
from normscan.deploy.card import card
from normscan.deploy.engines import available_engines, open_engine
from normscan.deploy.golden import golden_inputs
from normscan.deploy.graph import distances_in_graph
from normscan.deploy.session import SEEN_DIGITS, identity
from normscan.deploy.verify import LIMITS, golden_comparison, verify
from normscan.errors import InputError, MissingExtraError, UsageError
from normscan.files import temporary_folder, write_bytes
from normscan.ops.autograd import translation_table
from normscan.progress import say
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from normscan.scoring.thresholds import ThresholdFile
from normscan.train.fit import PLANTED, outputs
from normscan.train.folder import Run
from normscan.train.run import validator_of

OPSET = 18
"""Attention as MatMul and Softmax, which every engine knows."""

DISTANCES = ("native", "graph")
JUDGES = ("onnxruntime", "openvino")
"""Engines that a lower precision is judged on."""
CALIBRATION = 64
"""Training normals at most that int8 finds its ranges on."""


def export(
    run_folder: str | Path,
    output: str | Path | None = None,
    *,
    distances: str = "native",
    thresholds: str | Path | None = None,
    precision: str = "fp32",
    engine: str | None = None,
    keep: Sequence[str] = (),
    auto: bool = False,
    force: bool = False,
) -> Bundle:
    """Write the bundle of a finished run (default `<run>/<family>.normscan`) and verify it.

    distances  "native": the core compares what the network gives out; "graph": the graph holds the comparison and
               gives out maps, which are smaller but, on a CPU, slower to compute (`benchmarks/README.md`)
    precision  "fp32", "fp16", "bf16" or "int8" (`deploy.precision`): lower ones are judged on the run's validation
               pictures (`deploy.acceptance`), on `engine`: by default onnxruntime, for bf16 openvino
    keep       names of layers that stay float32; `auto` finds those that it takes

    A bundle whose scores disagree with torch's, or that is refused, is removed, and a `ParityError` says by how much.
    """
    _check_options(precision, distances)
    graph = distances == "graph"
    run = Run.open(Path(run_folder))
    _check_lowering(run, precision, engine, keep, auto)
    if thresholds is not None:
        group = ThresholdFile.read(Path(thresholds)).group(Path(thresholds), identity(run.manifest))
        run = replace(run, spec=replace(run.spec, group=group))
    target = Path(output) if output else run.folder / f"{run.family.name}.normscan"
    with temporary_folder(target, force=force, ours=is_bundle_only) as folder:
        network, spec = distances_in_graph(run.network(), run.spec) if graph else (run.network(), run.spec)
        golden = _golden(network, Scorer(spec, run.stats))
        write_bytes(folder / "model.onnx", onnx_bytes(network, golden["x"]))
        write_bytes(folder / "stats.safetensors", (run.folder / "stats.safetensors").read_bytes())
        write_bytes(folder / "golden.safetensors", save(golden))
        write_bytes(folder / "card.md", card(run).encode())
        fields = _fields(run, spec, golden)
        write_manifest(folder, fields)
        verify(folder, device="cpu")
        if precision != "fp32":
            _lower(folder, run, fields, precision, engine or _judge(precision), keep, auto)
    return Bundle.open(target)


def _check_options(precision: str, distances: str) -> None:
    for module in ("onnx", "onnxscript"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "export")
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}, expected {', '.join(PRECISIONS)}")
    if distances not in DISTANCES:
        raise UsageError(f"distances is {distances!r}, expected {' or '.join(DISTANCES)}")


def _judge(precision: str) -> str:
    """ONNX Runtime has no convolutions in bfloat16 on the CPU."""
    return "openvino" if precision == "bf16" else "onnxruntime"


def _lower(
    folder: Path, run: Run, fields: dict[str, Any], precision: str, engine: str, keep: Sequence[str], auto: bool
) -> None:
    """Put the accepted network in the place of the one in float32, and say in the manifest what that cost."""
    from normscan.deploy.lowering import lowered, opened  # loads onnx

    bundle, validator = Bundle.open(folder), validator_of(run, train=precision == "int8")
    reference = open_engine("torch", run, device="cpu")
    truth = Truth.of(reference, run.scorer(), run.manifest["spread"], validator.examples)
    normals = partial(validator.normals, CALIBRATION)
    found = lowered(bundle, precision, truth, engine=engine, calibration=normals, keep=keep, auto=auto)
    say(found.acceptance.explain())
    errors = golden_comparison(bundle, opened(bundle, found.model, engine)).errors
    write_bytes(folder / "model.onnx", found.model)
    fields["precision"] = {
        "name": precision,
        "limits": [max(2 * error, limit) for error, limit in zip(errors, LIMITS, strict=True)],
        "kept": list(found.kept),
        "accepted": found.acceptance.as_dict(),
    }
    told = f"\n## Precision\n\n{found.acceptance.explain()}\n\nIn float32: {', '.join(found.kept) or 'no layer'}.\n"
    write_bytes(folder / "card.md", (folder / "card.md").read_bytes() + told.encode())
    write_manifest(folder, fields)
    verify(folder, device="cpu")


def _check_lowering(run: Run, precision: str, engine: str | None, keep: Sequence[str], auto: bool) -> None:
    """Raise before anything is computed where a lower precision could not be judged, or none is asked for."""
    if precision == "fp32":
        if engine or keep or auto:
            given = [f"engine {engine!r}"] * bool(engine) + [f"keep {list(keep)}"] * bool(keep) + ["auto"] * auto
            raise UsageError(
                f"{', '.join(given)}: for a lower precision, and it is fp32; give one, as --precision fp16"
            )
        return
    judge = engine or _judge(precision)
    if judge not in JUDGES:
        raise UsageError(f"engine is {judge!r}, expected {' or '.join(JUDGES)}: a lower precision is judged on the CPU")
    if not available_engines()[judge]:
        raise MissingExtraError(judge, judge)
    labels = [record.label for record in run.records("validation")]
    normal = labels.count(0)
    abnormal = labels.count(1) or (PLANTED if normal else 0)
    if min(normal, abnormal) < 2:
        raise InputError(
            f"{run.folder}: {normal} normal and {abnormal} abnormal validation pictures; {precision} is judged on at "
            "least 2 of each: train with a larger --set validation"
        )


def onnx_bytes(network: nn.Module, x: np.ndarray) -> bytes:
    """The network as ONNX, weights inside, the batch dimension dynamic."""
    names = list(network(torch.from_numpy(x[:2]))._fields)
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.from_numpy(x[:2]),),
            dynamo=True,
            input_names=["x"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("N", min=1, max=1 << 16)},),
            opset_version=OPSET,
            external_data=False,
            custom_translation_table=translation_table(OPSET),
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def _golden(network: nn.Module, scorer: Scorer) -> dict[str, np.ndarray]:
    x = golden_inputs(scorer.spec.input)
    found = outputs(network, x)
    scores = scorer.score(found)
    return {
        "x": x,
        **{f"output.{name}": np.ascontiguousarray(value) for name, value in found.items()},
        "map": scores.maps,
        "score": scores.scores,
    }


def _fields(run: Run, spec: ScoringSpec, golden: dict[str, np.ndarray]) -> dict[str, Any]:
    trained = run.manifest
    return {
        "normscan": __version__,
        "family": run.family.name,
        "paper": run.family.paper,
        "spec": spec.to_dict(),
        "outputs": [name.removeprefix("output.") for name in golden if name.startswith("output.")],
        "spread": float(trained["spread"]),
        "map_scale": trained["map_scale"],
        "precision": {"name": "fp32", "limits": list(LIMITS), "kept": [], "accepted": None},
        "config": run.config.portable(),
        "training": {
            key: trained[key] for key in ("preset", "seed", "validation", "versions", "machine", "supervision")
        }
        | {key: trained["data"][key] for key in ("counts", "origins", "sha256")}
        | {"weights": trained["weights"]}
        | {"seen": [digest[:SEEN_DIGITS] for digest in run.seen()]},
        "export": {"opset": OPSET, "onnx": version("onnx"), "torch": torch.__version__},
        "notice": "Research use only. Not a medical device.",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own internals at length; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
