"""A run: from a folder of pictures to a trained, calibrated detector in a folder of its own."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_numpy
from safetensors.torch import save as save_torch
from torch import nn

from normscan import __version__
from normscan.checkpoint import latest_checkpoint, read_state
from normscan.data.sample import Record
from normscan.errors import Error, UsageError
from normscan.families import family as find_family
from normscan.families.config import Config
from normscan.families.family import Family, Step
from normscan.files import canonical_json, csv_text, write_bytes, write_json
from normscan.ops.border import cuda_module
from normscan.progress import say
from normscan.scoring.calibrate import Calibration, calibrate, needed
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from normscan.train.fit import Validation, Validator, score_all
from normscan.train.folder import (
    Run,
    data_folder,
    manifest_files,
    open_folder,
    relative,
    splits_table,
    trim_log,
)
from normscan.train.loader import Pictures, batches, check_colours, plain
from normscan.train.loop import Loop, Watch
from normscan.train.precision import resolve_precision
from normscan.train.records import ABNORMAL, PARTS, changes_for, check_given, gather

PACKAGES = ("numpy", "opencv-python-headless", "torch", "safetensors")


@dataclass(frozen=True)
class Fitted:
    """What follows training: the calibrated scorer and how it came about."""

    scorer: Scorer
    validation: Validation
    unit: str
    """What the calibration counted: "image", or "group" where groups have several."""
    spread: float
    """Standard deviation of the calibration scores."""
    map_scale: tuple[float, float]


def train(
    family: str,
    data: str | Path,
    output: str | Path,
    *,
    preset: str = "small",
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    generated: str | Path | None = None,
    abnormal: str | Path | None = None,
    watch: Watch | None = None,
) -> Run:
    """Train, validate and calibrate `family` on the pictures in `data`; the run is written to `output`.

    generated  a table of generated pictures, or its folder: they join the training
    abnormal   a folder of known abnormal pictures, for families with a supervised form
    watch      called after every validation with the network and what was found; it changes nothing

    A finished or half-done `output` is a `UsageError` unless `resume` or `force`. A resumed run ends with the same
    weights, bit for bit, as an uninterrupted one on the same machine with the same number of threads.
    """
    card = find_family(family)
    config = card.config.preset(preset, {**changes_for(card, abnormal), **(overrides or {})})
    check_given(card, config, abnormal)
    root, folder, spec = Path(data), Path(output), card.spec(config)
    network, weights = _fresh(card, config, resolve_device(device))
    records = gather(card, config, root, generated=generated, abnormal=abnormal)
    splits, hashes = splits_table(records, root)
    open_folder(folder, config, splits, resume=resume, force=force)
    if resume and (folder / "manifest.json").is_file():
        say(f"{folder} is finished already")
        return Run.open(folder)

    own = [r for r in records if r.origin == "ok"]
    pictures = {part: _pictures(own, part, config) for part in PARTS}
    validator = _validator(spec, config, pictures["train"], [r for r in own if r.split == "validation"])
    _run_stages(card, config, network, records, validator, folder, watch)
    finished = dict(card.finish(network, validator.labelled()))
    fitted = _fit(network, validator, config, pictures["calibration"])
    _write(folder, network, fitted, pictures["validation"], root)
    origin = {"folder": data_folder(root, folder), "sha256": {part: _digest(h) for part, h in hashes.items()}}
    precision = resolve_precision(config.precision, next(network.parameters()).device)
    provenance = {
        "data": origin,
        "weights": weights,
        "precision": str(precision).removeprefix("torch."),
        "finished": finished,
    }
    write_json(folder / "manifest.json", _manifest(card, config, preset, provenance, records, folder, fitted))
    return Run.open(folder)


def validator_of(run: Run, *, train: bool = True) -> Validator:
    """The validation of a finished run, on the same pictures and with the same planted anomalies.

    `train`: with the training pictures, which calling it, and its `normals`, take.
    """
    learnt = _pictures(run.records("train") if train else [], "train", run.config)
    return _validator(run.spec, run.config, learnt, run.records("validation"))


def _validator(spec: ScoringSpec, config: Config, train: Pictures, validation: Sequence[Record]) -> Validator:
    labelled = [r for r in validation if r.label == 1]
    return Validator(
        spec,
        train,
        _pictures(validation, "validation", config),
        abnormal=Pictures(labelled, smallest=config.smallest) if labelled else None,
        seed=config.seed,
        batch_size=config.batch_size,
        plant=config.plant,
    )


def _pictures(records: Sequence[Record], part: str, config: Config) -> Pictures:
    """A part's pictures: of train all, of the others the normals, which make scale and threshold."""
    kept = [r for r in records if r.split == part and (part == "train" or r.label == 0)]
    return Pictures(kept, smallest=config.smallest)


def _fresh(card: Family, config: Config, place: torch.device) -> tuple[nn.Module, dict[str, str]]:
    """A network as it begins, on its device, and where its weights are from."""
    torch.manual_seed(config.seed)
    network = card.network(config)
    weights = dict(card.start(network, config))
    return network.to(place).to(memory_format=torch.channels_last), weights  # type: ignore[call-overload]


def resolve_device(name: str) -> torch.device:
    """auto, cpu or cuda:N -> device; a device that is not there, or that the ops do not run on, is a `UsageError`.

    auto is the first GPU where there is one and normscan was built for it, else the CPU.
    """
    kind, _, index = name.partition(":")
    if name == "cpu" or (name == "auto" and why_no_cuda()):
        return torch.device("cpu")
    if name == "auto":
        return torch.device("cuda", 0)
    if kind != "cuda" or not (index.isdecimal() or name == "cuda"):
        raise UsageError(f"--device {name!r} is not known; expected auto, cpu or cuda:N")
    if missing := why_no_cuda():
        raise UsageError(f"--device {name}: {missing}; use --device cpu")
    if int(index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return torch.device("cuda", int(index or 0))


def why_no_cuda() -> str:
    """Why neither torch nor the ops can run on a GPU here; empty where both can."""
    try:
        cuda_module("a GPU is asked for")
    except Error as error:
        return str(error)
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} sees no CUDA device"


def _run_stages(
    card: Family,
    config: Config,
    network: nn.Module,
    records: Sequence[Record],
    validator: Validator,
    folder: Path,
    watch: Watch | None,
) -> None:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    state = read_state(checkpoint) if checkpoint else None
    trim_log(folder / "log.jsonl", state["progress"]["count"] if state else -1)
    first = state["progress"]["stage"] if state else 0
    count = 0
    for stage, make_step in enumerate(card.stages):
        if stage < first:
            continue
        step = make_step(network, config)
        if step.schedule.epochs == 0:
            continue
        seen = [r for r in records if r.split == "train" and (r.origin != ABNORMAL or step.schedule.abnormal)]
        pictures = Pictures(seen, smallest=config.smallest)
        unlabelled = _unlabelled(card, config, step, records)
        if unlabelled is not None and config.channels > 1:
            check_colours(pictures, unlabelled)
        loop = Loop(network, step, config, pictures, validator, unlabelled=unlabelled, watch=watch)
        loop.progress.stage, loop.progress.count = stage, count
        if state is not None:
            loop.load_state_dict(state)
            say(f"resumed at epoch {loop.progress.epoch + 1}, step {loop.progress.count}")
            state = None
        loop.run(folder)
        count = loop.progress.count


def _unlabelled(card: Family, config: Config, step: Step, records: Sequence[Record]) -> Pictures | None:
    """The pictures that go without a label into a stage that asks for them."""
    if card.supervision != "unlabelled" or not step.schedule.unlabelled:
        return None
    return Pictures([r for r in records if r.split == "unlabelled"], smallest=config.smallest)


def _fit(network: nn.Module, validator: Validator, config: Config, calibration: Pictures) -> Fitted:
    """Statistics and scales for the chosen weights, then the threshold from calibration normals alone."""
    found = validator(network)
    make = plain(calibration, found.scorer.spec.input)
    x_batches = (x for x, _ in batches(make, range(len(calibration)), config.batch_size))
    normals = score_all(network, found.scorer, x_batches)
    scores, unit = independent(normals.scores, [r.group for r in calibration.records])
    threshold = calibrate(scores, config.target_specificity)
    if threshold is None:
        say(
            f"no threshold: {len(scores)} calibration normals ({unit}s), {needed(config.target_specificity)} needed "
            f"for specificity {config.target_specificity}; scores will carry no decision"
        )
    return Fitted(
        scorer=Scorer(found.scorer.spec.with_calibration(threshold), found.scorer.stats),
        validation=found,
        unit=unit,
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else found.spread,
        map_scale=normals.map_scale,
    )


def independent(scores: np.ndarray, groups: Sequence[str | None]) -> tuple[np.ndarray, str]:
    """Scores that count as independent, and their unit: images, or groups (patients) where some have several.

    A group counts once, by its highest score: the threshold then holds for all pictures of a patient together.
    """
    keys = [f"image {i}" if group is None else f"group {group}" for i, group in enumerate(groups)]
    if len(set(keys)) == len(keys):
        return scores, "image"
    names, index = np.unique(keys, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, index, scores)
    return highest, "group"


def _write(folder: Path, network: nn.Module, fitted: Fitted, validation: Pictures, root: Path) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    stats = {name: np.ascontiguousarray(value) for name, value in fitted.scorer.stats.items()}
    scores = zip(validation.records, fitted.validation.scores.tolist(), strict=True)
    rows = [("file", "score"), *((relative(record.path, root), score) for record, score in scores)]
    write_bytes(folder / "network.safetensors", save_torch(weights))
    write_bytes(folder / "stats.safetensors", save_numpy(stats))
    write_json(folder / "spec.json", fitted.scorer.spec.to_dict())
    write_bytes(folder / "validation.csv", csv_text(rows).encode())


def _manifest(
    card: Family,
    config: Config,
    preset: str,
    provenance: Mapping[str, Any],
    records: Sequence[Record],
    folder: Path,
    fitted: Fitted,
) -> dict[str, Any]:
    calibration: Calibration | None = fitted.scorer.spec.calibration
    origins = Counter(record.origin for record in records)
    counts = Counter(str(record.split) for record in records if record.origin == "ok")
    groups = Counter(part for part, _ in {(str(r.split), r.group) for r in records if r.group is not None})
    return {
        "schema": 1,
        "normscan": __version__,
        "family": card.name,
        "paper": card.paper,
        "supervision": "supervised" if ABNORMAL in origins else card.supervision,
        "preset": preset,
        "seed": config.seed,
        "data": {**provenance["data"], "counts": dict(counts), "groups": dict(groups), "origins": dict(origins)},
        "weights": provenance["weights"],
        "precision": provenance["precision"],
        "finished": provenance["finished"],
        "validation": {
            "labelled_auroc" if fitted.validation.labelled else "planted_auroc": fitted.validation.auroc,
            "separation": fitted.validation.separation,
        },
        "spread": fitted.spread,
        "map_scale": fitted.map_scale,
        "calibration": None if calibration is None else {**vars(calibration), "unit": fitted.unit},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "files": manifest_files(folder),
    }


def _digest(hashes: Sequence[str]) -> str:
    """One hash for a part of the data: of its pictures' sorted hashes."""
    return hashlib.sha256(canonical_json(sorted(hashes)).encode()).hexdigest()
