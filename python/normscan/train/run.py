"""A run: from a folder of pictures to a trained, calibrated detector in a folder of its own.

config.json            every number of the training
splits.csv             each picture's part, label, group (hashed) and content hash
log.jsonl              one line an epoch
checkpoints/           the last state, to resume from
network.safetensors    the chosen weights
spec.json stats.safetensors validation.csv
manifest.json          written last: a run without it is not finished
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.numpy import load as load_numpy
from safetensors.numpy import save as save_numpy
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from torch import nn

from normscan import __version__
from normscan.data.layouts import read_layout
from normscan.data.sample import Record
from normscan.data.splits import check_disjoint, split
from normscan.errors import InputError, UsageError
from normscan.families import family as find_family
from normscan.families.config import Config
from normscan.families.family import Family
from normscan.files import canonical_json, read_json, sha256, write_bytes, write_json
from normscan.progress import say
from normscan.scoring.calibrate import calibrate, needed
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from normscan.train.checkpoint import latest_checkpoint, read_state
from normscan.train.fit import Validator, score_all
from normscan.train.loader import Pictures, batches, plain
from normscan.train.loop import Loop

PACKAGES = ("numpy", "opencv-python-headless", "torch", "safetensors")


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    folder: Path
    manifest: dict[str, Any]
    family: Family
    config: Config
    spec: ScoringSpec
    stats: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run folder; an unfinished one is an `InputError` that says how to go on."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(
                f"{folder} is not a finished run (no manifest.json); train it, or go on with train --resume"
            )
        manifest = read_json(path)
        for name, digest in manifest["files"].items():
            if (found := sha256(folder / name)) != digest:
                raise InputError(f"{folder / name} has changed since training: sha256 {found}, expected {digest}")
        chosen = find_family(manifest["family"])
        return cls(
            folder,
            manifest,
            chosen,
            chosen.config.parse(read_json(folder / "config.json")),
            ScoringSpec.from_json((folder / "spec.json").read_text("utf-8")),
            load_numpy((folder / "stats.safetensors").read_bytes()),
        )

    def network(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        network = self.family.network(self.config)
        network.load_state_dict(load_torch((self.folder / "network.safetensors").read_bytes()))
        return network.eval()

    def scorer(self) -> Scorer:
        """The calibrated scorer."""
        return Scorer(self.spec, self.stats)


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
) -> Run:
    """Train, validate and calibrate `family` on the pictures in `data`; the run is written to `output`.

    A finished or half-done `output` is a `UsageError` unless `resume` or `force`. A resumed run ends with the same
    weights, bit for bit, as an uninterrupted one on the same machine with the same number of threads.
    """
    card = find_family(family)
    config = card.config.preset(preset, overrides)
    place, root, folder = resolve_device(device), Path(data), Path(output)
    parts = _parts(card, config, root)
    _open_folder(folder, config, parts, root, resume=resume, force=force)
    if resume and (folder / "manifest.json").is_file():
        say(f"{folder} is finished already")
        return Run.open(folder)

    torch.manual_seed(config.seed)
    network = card.network(config).to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    spec = card.spec(config)
    pictures = {name: Pictures(records) for name, records in parts.items()}
    validator = Validator(
        spec, pictures["train"], pictures["validation"], seed=config.seed, batch_size=config.batch_size
    )
    _run_stages(card, config, network, pictures["train"], spec, validator, folder)
    scorer, validation = _finish(network, validator, config, pictures["calibration"])
    _write(folder, network, scorer, validation, pictures["validation"], root)
    write_json(folder / "manifest.json", _manifest(card, config, preset, root, folder, parts, scorer, validation))
    return Run.open(folder)


def resolve_device(name: str) -> torch.device:
    """auto, cpu or cuda:N -> device; a device that is not there, or that the ops do not run on, is a `UsageError`."""
    if name in ("auto", "cpu"):
        return torch.device("cpu")
    if name.partition(":")[0] == "cuda":
        raise UsageError(f"--device {name}: this version is built without CUDA; use --device cpu")
    raise UsageError(f"--device {name!r} is not known; expected auto, cpu or cuda:N")


def _parts(card: Family, config: Config, root: Path) -> dict[str, list[Record]]:
    """The five parts; a one-class family's training never sees a picture that is not labelled normal."""
    records = read_layout(root)
    check_disjoint(records)
    if card.supervision == "one_class":
        dropped = [r for r in records if r.split == "train" and r.label != 0]
        if dropped:
            say(f"{len(dropped)} pictures in train that are not normal are left out ({card.name} learns normals only)")
        records = [r for r in records if not (r.split == "train" and r.label != 0)]
    count = sum(r.split == "train" for r in records)
    share = max(config.calibration, min(0.4, needed(config.target_specificity) / max(count, 1)))
    records = split(records, seed=config.seed, validation=config.validation, calibration=share)
    parts = {name: [r for r in records if r.split == name] for name in ("train", "validation", "calibration")}
    parts["validation"] = [r for r in parts["validation"] if r.label == 0]
    say("  ".join(f"{name} {len(part)}" for name, part in parts.items()))
    return parts


def splits_csv(parts: Mapping[str, Sequence[Record]], root: Path) -> str:
    """Path relative to the data folder, part, label, group (hashed: it may be a patient) and content hash."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "split", "label", "group", "sha256"])
    for name, records in parts.items():
        for record in sorted(records, key=lambda r: r.path):
            group = "" if record.group is None else hashlib.blake2b(record.group.encode(), digest_size=8).hexdigest()
            table.writerow([relative(record.path, root), name, record.label, group, sha256(record.path)])
    return text.getvalue()


def relative(path: Path, root: Path) -> str:
    """Path as text, relative to the data folder where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _open_folder(
    folder: Path, config: Config, parts: Mapping[str, Sequence[Record]], root: Path, *, resume: bool, force: bool
) -> None:
    table = splits_csv(parts, root)
    if folder.exists() and any(folder.iterdir()):
        if resume:
            _check_same(folder, config, table)
            return
        if not force:
            raise UsageError(
                f"{folder} is not empty; go on with --resume, start anew with --force, or choose another -o"
            )
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} is not empty and no run of normscan; --force removes runs only")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_bytes(folder / "splits.csv", table.encode())


def _check_same(folder: Path, config: Config, table: str) -> None:
    stored = read_json(folder / "config.json")
    now = config.model_dump(mode="json")
    changed = [f"{k}: {stored.get(k)!r} then, {now.get(k)!r} now" for k in now if stored.get(k) != now.get(k)]
    if changed:
        raise UsageError(f"{folder} cannot be resumed with another configuration: {'; '.join(changed)}")
    if (folder / "splits.csv").read_text("utf-8") != table:
        raise UsageError(f"{folder} cannot be resumed: the pictures differ from those in {folder / 'splits.csv'}")


def _run_stages(
    card: Family,
    config: Config,
    network: nn.Module,
    pictures: Pictures,
    spec: ScoringSpec,
    validator: Validator,
    folder: Path,
) -> None:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    state = read_state(checkpoint) if checkpoint else None
    first = state["progress"]["stage"] if state else 0
    count = 0
    for stage, make_step in enumerate(card.stages):
        if stage < first:
            continue
        loop = Loop(network, make_step(network, config), config, pictures, spec.input, validator)
        loop.progress.stage, loop.progress.count = stage, count
        if state is not None:
            loop.load_state_dict(state)
            _trim_log(folder / "log.jsonl", loop.progress.count)
            say(f"resumed at epoch {loop.progress.epoch + 1}, step {loop.progress.count}")
            state = None
        loop.run(folder)
        count = loop.progress.count


def _trim_log(log: Path, count: int) -> None:
    """Drop the lines of an epoch that was logged but not checkpointed: it is about to be done again."""
    if log.exists():
        lines = log.read_text("utf-8").splitlines(keepends=True)
        write_bytes(log, "".join(line for line in lines if json.loads(line)["steps"] <= count).encode())


def _finish(
    network: nn.Module, validator: Validator, config: Config, calibration: Pictures
) -> tuple[Scorer, dict[str, Any]]:
    """Statistics and scales for the chosen weights, then the threshold from calibration normals alone."""
    found = validator(network)
    make = plain(calibration, found.scorer.spec.input)
    x_batches = (x for x, _ in batches(make, range(len(calibration)), config.batch_size))
    normals = score_all(network, found.scorer, x_batches)
    scores = normals.scores
    threshold = calibrate(scores, config.target_specificity)
    if threshold is None:
        say(
            f"no threshold: {len(scores)} calibration normals, {needed(config.target_specificity)} needed for "
            f"specificity {config.target_specificity}; scores will carry no decision"
        )
    spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else found.spread
    scorer = Scorer(found.scorer.spec.with_calibration(threshold), found.scorer.stats)
    figures = {
        "planted_auroc": found.auroc,
        "separation": found.separation,
        "spread": spread,
        "scores": found.scores.tolist(),
        "map_scale": normals.map_scale,
    }
    return scorer, figures


def _write(
    folder: Path, network: nn.Module, scorer: Scorer, validation: Mapping[str, Any], pictures: Pictures, root: Path
) -> None:
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(folder / "network.safetensors", save_torch(weights))
    write_bytes(folder / "stats.safetensors", save_numpy({k: np.ascontiguousarray(v) for k, v in scorer.stats.items()}))
    write_json(folder / "spec.json", scorer.spec.to_dict())
    rows = zip(pictures.records, validation["scores"], strict=True)
    lines = [f"{_quoted(relative(record.path, root))},{score!r}" for record, score in rows]
    write_bytes(folder / "validation.csv", "\n".join(["file,score", *lines, ""]).encode())


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def _manifest(
    card: Family,
    config: Config,
    preset: str,
    root: Path,
    folder: Path,
    parts: Mapping[str, Sequence[Record]],
    scorer: Scorer,
    validation: Mapping[str, Any],
) -> dict[str, Any]:
    calibration = scorer.spec.calibration
    files = ("config.json", "splits.csv", "network.safetensors", "spec.json", "stats.safetensors", "validation.csv")
    return {
        "schema": 1,
        "normscan": __version__,
        "family": card.name,
        "paper": card.paper,
        "supervision": card.supervision,
        "preset": preset,
        "seed": config.seed,
        "data": {
            "folder": os.path.abspath(root),
            "counts": {name: len(part) for name, part in parts.items()},
            "sha256": {name: _digest(part) for name, part in parts.items()},
            "labels": dict(Counter(str(r.label) for part in parts.values() for r in part)),
        },
        "validation": {k: validation[k] for k in ("planted_auroc", "separation")},
        "spread": validation["spread"],
        "map_scale": validation["map_scale"],
        "calibration": None if calibration is None else vars(calibration),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "files": {name: sha256(folder / name) for name in files},
    }


def _digest(records: Sequence[Record]) -> str:
    """One hash for a part of the data: of its pictures' sorted hashes."""
    return hashlib.sha256(canonical_json(sorted(sha256(r.path) for r in records)).encode()).hexdigest()
