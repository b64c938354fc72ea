"""The run folder: what a training leaves, written and read back.

config.json            every number of the training
splits.csv             each picture's part, label, origin, group (numbered: a group may be a patient), content hash
log.jsonl              one line an epoch
checkpoints/           the last state, to resume from
network.safetensors    the chosen weights
spec.json stats.safetensors validation.csv
manifest.json          written last: a run without it is not finished
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_numpy
from safetensors.torch import load as load_torch
from torch import nn

from normscan.data.sample import Record
from normscan.errors import InputError, UsageError
from normscan.families import family as find_family
from normscan.families.config import Config
from normscan.families.family import Family
from normscan.files import csv_text, read_json, sha256, told, write_bytes, write_json
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec

FILES = ("config.json", "network.safetensors", "spec.json", "splits.csv", "stats.safetensors", "validation.csv")
"""Those whose hashes the manifest holds."""
_OTHERS = {"manifest.json", "log.jsonl", "checkpoints", "evaluation"}
_SEEN = ("train", "validation", "calibration", "unlabelled")
"""The parts that made the detector, or may have."""


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
        """Read a run folder; an unfinished, altered or foreign one is an `InputError` that says how to go on."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"{folder} is not a finished run (no manifest.json); train it, or go on with --resume")
        manifest = read_json(path)
        try:
            for name in FILES:
                if (found := sha256(folder / name)) != (expected := manifest["files"][name]):
                    raise InputError(f"{folder / name} has changed since training: sha256 {found}, expected {expected}")
            chosen = find_family(manifest["family"])
            stats = load_numpy((folder / "stats.safetensors").read_bytes())
            _ = manifest["spread"], manifest["map_scale"], manifest["weights"]
            _ = manifest["data"]["folder"], manifest["data"]["origins"]
        except (KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{path} is no manifest of a run ({error!r}); train again") from error
        return cls(
            folder,
            manifest,
            chosen,
            chosen.config.parse(read_json(folder / "config.json")),
            ScoringSpec.from_json((folder / "spec.json").read_text("utf-8")),
            stats,
        )

    def network(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        network = self.family.network(self.config)
        network.load_state_dict(load_torch((self.folder / "network.safetensors").read_bytes()))
        return network.eval()

    def scorer(self) -> Scorer:
        """The calibrated scorer."""
        return Scorer(self.spec, self.stats)

    def data(self) -> Path:
        """The folder of pictures that it was trained on."""
        return Path(os.path.normpath(self.folder / self.manifest["data"]["folder"]))

    def seen(self) -> list[str]:
        """Content hashes of the pictures that made the detector, sorted: none of them may test it."""
        return sorted(row["sha256"] for row in self._splits() if row["split"] in _SEEN)

    def records(self, part: str) -> list[Record]:
        """The data folder's pictures of a part, as training had them; an `InputError` where one is gone or changed."""
        root, found = self.data(), []
        for row in self._splits():
            if row["split"] != part or row["origin"] != "ok":
                continue
            path = root / row["file"]
            if not path.is_file():
                raise InputError(f"{path}: not found; {self.folder} was trained on it, and its {part} part is needed")
            if sha256(path) != row["sha256"]:
                raise InputError(f"{path} has changed since {self.folder} was trained on it; bring it back")
            label = int(row["label"]) if row["label"] else None
            found.append(Record(path, label=label, split=part, origin=row["origin"]))
        return found

    def _splits(self) -> Iterable[dict[str, str]]:
        return csv.DictReader(io.StringIO((self.folder / "splits.csv").read_text("utf-8")))


def open_folder(folder: Path, config: Config, splits: str, *, resume: bool, force: bool) -> None:
    """Begin a run, or check that the one in `folder` may be resumed; anything else there is a `UsageError`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a folder with -o")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if resume and {"config.json", "splits.csv"} <= names:
        _check_same(folder, config, splits)
        return
    if names:
        if not resume and not force:
            raise UsageError(
                f"{folder} is not empty; go on with --resume, start anew with --force, or choose another -o"
            )
        if not all(name in {*FILES, *_OTHERS} or name.endswith(".normscan") for name in names):
            raise UsageError(f"{folder} holds what no run of normscan wrote; choose another -o")
        shutil.rmtree(folder)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "splits.csv", splits.encode())
    write_json(folder / "config.json", config.model_dump(mode="json"))


def _check_same(folder: Path, config: Config, splits: str) -> None:
    stored, now = read_json(folder / "config.json"), config.model_dump(mode="json")
    changed = [f"{k}: {stored.get(k)!r} then, {now.get(k)!r} now" for k in now if stored.get(k) != now.get(k)]
    if changed:
        raise UsageError(f"{folder} cannot be resumed with another configuration: {'; '.join(changed)}")
    if (folder / "splits.csv").read_text("utf-8") != splits:
        raise UsageError(f"{folder} cannot be resumed: the pictures differ from those in {folder / 'splits.csv'}")


def trim_log(log: Path, count: int) -> None:
    """Keep the lines of epochs that a checkpoint holds: a later one, or half a line, is about to be written again."""
    if log.exists():
        kept = []
        for line in log.read_text("utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["steps"] > count:
                    break
            except ValueError:
                break
            kept.append(line)
        write_bytes(log, "".join(kept).encode())


def splits_table(records: Iterable[Record], root: Path) -> tuple[str, dict[str, list[str]]]:
    """(splits.csv, the sorted content hashes of each part); paths are relative to the data folder `root`."""
    ordered = sorted(records, key=lambda record: (str(record.split), record.path))
    # A number, not the name and not its hash: names of patients are few enough to be found by trying.
    numbers = {name: f"g{i:05}" for i, name in enumerate(sorted({r.group for r in ordered if r.group is not None}))}
    hashes: dict[str, list[str]] = {}
    rows: list[Sequence[Any]] = [("file", "split", "label", "origin", "group", "sha256")]
    for record in ordered:
        digest = sha256(record.path)
        hashes.setdefault(str(record.split), []).append(digest)
        group = "" if record.group is None else numbers[record.group]
        rows.append((relative(record.path, root), record.split, record.label, record.origin, group, digest))
    return csv_text(rows), {name: sorted(part) for name, part in hashes.items()}


def relative(path: Path, root: Path) -> str:
    """A picture's path as text, relative to its data folder where it lies in it."""
    return (path.relative_to(root) if path.is_relative_to(root) else Path(os.path.abspath(path))).as_posix()


def data_folder(root: Path, folder: Path) -> str:
    """How a run in `folder` names its data: relative where the two lie side by side (and may move together)."""
    here, there = Path(os.path.abspath(folder)), Path(os.path.abspath(root))
    return os.path.relpath(there, here) if here.parent == there.parent else str(there)


def manifest_files(folder: Path) -> Mapping[str, str]:
    """The hashes that go into the manifest."""
    return {name: sha256(folder / name) for name in FILES}
