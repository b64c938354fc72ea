"""The model folder: what the training of a generator leaves, written and read back.

config.json         every number of the training
sources.csv         the pictures learnt from, with domain and content hash
log.jsonl           one line a scale or epoch
sheets/             a contact sheet of each: real pictures beside made ones
checkpoints/        the last state, to resume from; gone once training is finished
model.safetensors   the weights
manifest.json       written last: a model without it is not finished
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch
from torch import Tensor, nn

from normscan import __version__
from normscan.errors import InputError, UsageError
from normscan.files import read_json, sha256, told, write_bytes, write_json
from normscan.generate import generator as find_generator
from normscan.generate.card import Generator, GeneratorConfig, Source

PACKAGES = ("numpy", "opencv-python-headless", "torch", "safetensors")
FILES = ("config.json", "model.safetensors", "sources.csv")
"""Those whose hashes the manifest holds."""
_OTHERS = {"manifest.json", "log.jsonl", "sheets", "checkpoints"}
_COLUMNS = ("file", "domain", "sha256")


@dataclass(frozen=True)
class Model:
    """A trained generator, read back."""

    folder: Path
    manifest: dict[str, Any]
    generator: Generator
    config: GeneratorConfig
    sources: tuple[Source, ...]
    """As they lay when training began; they may have been moved since."""
    tensors: dict[str, Tensor]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a model folder; an unfinished, altered or foreign one is an `InputError` that names the file."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(
                f"{folder} is not a finished model (no manifest.json); train it with `normscan generate NAME train`, "
                "or go on with --resume"
            )
        manifest = read_json(path)
        try:
            for name in FILES:
                if (found := sha256(folder / name)) != (expected := manifest["files"][name]):
                    raise InputError(f"{folder / name} has changed since training: sha256 {found}, expected {expected}")
            card = find_generator(manifest["generator"])
        except (KeyError, TypeError, UsageError) as error:
            raise InputError(f"{path} is no manifest of a generator ({error!r}); train again") from error
        config = card.config.parse(read_json(folder / "config.json"))
        return cls(folder, manifest, card, config, _read_sources(folder / "sources.csv"), _read_weights(folder))

    @property
    def weights_file(self) -> Path:
        """For messages about what is in it."""
        return self.folder / "model.safetensors"

    def tensor(self, name: str) -> Tensor:
        """One tensor; a missing one is an `InputError`."""
        if name not in self.tensors:
            raise InputError(f"{self.weights_file}: tensor {name!r} is missing; train again")
        return self.tensors[name]

    def load_into(self, network: nn.Module, prefix: str = "") -> None:
        """Load the tensors whose names begin with `prefix`; missing, unknown or misshapen ones are an `InputError`."""
        state = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{self.weights_file} does not fit its config.json: {error}") from error


def open_folder(folder: Path, config: GeneratorConfig, sources: Sequence[Source], *, resume: bool, force: bool) -> None:
    """Begin a model, or check that the one in `folder` may be resumed; anything else there is a `UsageError`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a folder with -o")
    stored = config.model_dump(mode="json")
    table = _sources_table(sources)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if resume and {"config.json", "sources.csv"} <= names:
        _check_same(folder, stored, table)
        return
    if names:
        if not resume and not force:
            raise UsageError(
                f"{folder} is not empty; go on with --resume, start anew with --force, or choose another -o"
            )
        if not names <= {*FILES, *_OTHERS}:
            raise UsageError(f"{folder} holds what no generator of normscan wrote; choose another -o")
        shutil.rmtree(folder)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "sources.csv", table.encode())
    write_json(folder / "config.json", stored)


def finish(folder: Path, card: Generator, config: GeneratorConfig, preset: str, tensors: Mapping[str, Tensor]) -> None:
    """Write the weights, and last the manifest; then the checkpoints go."""
    write_bytes(
        folder / "model.safetensors",
        save_torch({name: value.detach().cpu().contiguous() for name, value in tensors.items()}),
    )
    write_json(
        folder / "manifest.json",
        {
            "schema": 1,
            "normscan": __version__,
            "generator": card.name,
            "paper": card.paper,
            "preset": preset,
            "seed": config.seed,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "files": {name: sha256(folder / name) for name in FILES},
        },
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _check_same(folder: Path, stored: Mapping[str, Any], table: str) -> None:
    before = read_json(folder / "config.json")
    changed = [f"{k}: {before.get(k)!r} then, {v!r} now" for k, v in stored.items() if before.get(k) != v]
    if changed:
        raise UsageError(f"{folder} cannot be resumed with another configuration: {'; '.join(changed)}")
    if (folder / "sources.csv").read_text("utf-8") != table:
        raise UsageError(f"{folder} cannot be resumed: the pictures differ from those in {folder / 'sources.csv'}")


def _sources_table(sources: Sequence[Source]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for source in sources:
        writer.writerow((os.path.abspath(source.path), source.domain, sha256(source.path)))
    return text.getvalue()


def _read_sources(path: Path) -> tuple[Source, ...]:
    table = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    if tuple(table.fieldnames or ()) != _COLUMNS:
        raise InputError(f"{path}: columns are {table.fieldnames}, expected {', '.join(_COLUMNS)}; train again")
    return tuple(Source(Path(row["file"]), row["domain"]) for row in table)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    try:
        return load_torch(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); train again") from error
