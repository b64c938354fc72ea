"""Export: from a run to a bundle that has proved itself. One that disagrees with torch is never left behind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from normscan import __version__
from normscan.deploy.bundle import Bundle, is_bundle_only, write_manifest
from normscan.deploy.card import card
from normscan.deploy.golden import golden_inputs
from normscan.deploy.graph import distances_in_graph
from normscan.deploy.session import SEEN_DIGITS, identity
from normscan.deploy.verify import verify
from normscan.errors import MissingExtraError, UsageError
from normscan.files import temporary_folder, write_bytes
from normscan.ops.autograd import translation_table
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from normscan.scoring.thresholds import ThresholdFile
from normscan.train.fit import outputs
from normscan.train.folder import Run

OPSET = 18
"""Attention as MatMul and Softmax, which every engine knows."""

DISTANCES = ("native", "graph")


def export(
    run_folder: str | Path,
    output: str | Path | None = None,
    *,
    distances: str = "native",
    thresholds: str | Path | None = None,
    force: bool = False,
) -> Bundle:
    """Write the bundle of a finished run (default `<run>/<family>.normscan`) and verify it.

    distances  "native": the core compares what the network gives out; "graph": the graph holds the comparison and
               gives out maps, which are smaller but, on a CPU, slower to compute (`benchmarks/README.md`)

    A bundle whose ONNX Runtime scores disagree with torch's is removed, and a `ParityError` says by how much.
    """
    for module in ("onnx", "onnxscript"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "export")
    if distances not in DISTANCES:
        raise UsageError(f"distances is {distances!r}, expected {' or '.join(DISTANCES)}")
    graph = distances == "graph"
    run = Run.open(Path(run_folder))
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
        write_manifest(folder, _fields(run, spec, golden))
        verify(folder)
    return Bundle.open(target)


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
