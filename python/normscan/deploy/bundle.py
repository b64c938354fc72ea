"""The bundle: a folder with everything that scoring needs, verified before anything in it is parsed.

manifest.json       spec, calibration, provenance; the hash of every other file, and its own
model.onnx          the network, weights inside
stats.safetensors   the Gaussians of the spec's terms
golden.safetensors  8 inputs with torch's outputs, maps and scores: `verify` replays them
card.md             the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from normscan.errors import ArgumentError, BundleError, ConfigError
from normscan.files import canonical_json, sha256, write_json
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec

SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What a network may be in."""
FILES = ("card.md", "golden.safetensors", "model.onnx", "stats.safetensors")
MANIFEST_BYTES = 16 << 20
"""A larger manifest is refused unread."""
FILE_BYTES = 4 << 30
"""And so is any other file."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked, and is kept: what was hashed is what is used."""

    folder: Path
    manifest: dict[str, Any]
    spec: ScoringSpec
    files: dict[str, bytes]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Verify and read; what is missing, added, altered, unsafe or unknown is named in a `BundleError`."""
        if not folder.is_dir():
            raise BundleError(f"{folder} is no folder, expected a bundle (made by `normscan export`)")
        if extra := sorted(p.name for p in folder.iterdir() if p.name not in ("manifest.json", *FILES)):
            raise BundleError(f"{folder} holds {extra[0]!r}, expected only manifest.json, {', '.join(FILES)}")
        manifest = _manifest(folder)
        if extra := sorted(set(manifest["files"]) - set(FILES)):
            raise BundleError(f"{folder}/manifest.json names {extra[0]!r}, expected only {', '.join(FILES)}")
        files = {name: _checked(folder, name, manifest["files"].get(name)) for name in FILES}
        try:
            spec = ScoringSpec.from_json(canonical_json(manifest["spec"]))
        except ConfigError as error:
            raise BundleError(f"{folder}/manifest.json: spec: {error}") from error
        return cls(folder, manifest, spec, files)

    @property
    def model(self) -> bytes:
        """The ONNX file."""
        return self.files["model.onnx"]

    @property
    def precision(self) -> str:
        """Of the network: "fp32", or what it was lowered to."""
        return str(self.manifest["precision"]["name"])

    @property
    def engine(self) -> str:
        """What it runs on where nothing else is asked: the engine that a lowered network was accepted on."""
        accepted = self.manifest["precision"].get("accepted")
        return "onnxruntime" if accepted is None else str(accepted["engine"])

    def scorer(self) -> Scorer:
        """The native scorer with the bundle's statistics."""
        try:
            return Scorer(self.spec, self._tensors("stats.safetensors"))
        except ArgumentError as error:
            raise BundleError(f"{self.folder}/stats.safetensors does not fit the spec: {error}") from error

    def golden(self) -> dict[str, np.ndarray]:
        """The recorded inputs, outputs, maps and scores."""
        golden = self._tensors("golden.safetensors")
        wanted = {"x", "map", "score", *(f"output.{name}" for name in self.manifest["outputs"])}
        if set(golden) != wanted:
            raise BundleError(f"{self.folder}/golden.safetensors holds {sorted(golden)}, expected {sorted(wanted)}")
        return golden

    def _tensors(self, name: str) -> dict[str, np.ndarray]:
        try:
            return load(self.files[name])
        except (SafetensorError, KeyError) as error:  # KeyError: a dtype that numpy does not have
            raise BundleError(f"{self.folder / name} cannot be read: {error}") from error


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Add the files' hashes and sizes and the manifest's own hash, and write it."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in FILES}
    manifest = {"schema": SCHEMA, **fields, "files": files}
    write_json(folder / "manifest.json", {**manifest, "sha256": _own_hash(manifest)})


def is_bundle_only(folder: Path) -> bool:
    """True for a folder with nothing but a bundle's files in it."""
    return {path.name for path in folder.iterdir()} <= {"manifest.json", *FILES}


def is_bundle(folder: Path) -> bool:
    """True for a folder that holds, or should hold, a bundle."""
    return folder.suffix == ".normscan" or (folder / "model.onnx").exists()


def _own_hash(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


_FIELDS = {
    "files": dict,
    "spec": dict,
    "outputs": list,
    "spread": float,
    "map_scale": list,
    "training": dict,
    "precision": dict,
    "family": str,
    "paper": str,
    "normscan": str,
    "notice": str,
}


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(_read(path, MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise BundleError(f"{path}: schema is {found!r}, expected {SCHEMA}; a newer normscan may be needed")
    try:
        expected = _own_hash(manifest)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from error
    if manifest.get("sha256") != expected:
        raise BundleError(
            f"{path} has been altered: sha256 is {manifest.get('sha256')!r}, its content gives {expected}"
        )
    for field, kind in _FIELDS.items():
        if not isinstance(manifest.get(field), kind):
            raise BundleError(f"{path}: {field} is {manifest.get(field)!r}, expected a {kind.__name__}")
    _check_values(path, manifest)
    return manifest


def _check_values(path: Path, manifest: Mapping[str, Any]) -> None:
    """What the field types alone do not say."""
    low_high, seen = manifest["map_scale"], manifest["training"].get("seen")
    if len(low_high) != 2 or not all(isinstance(v, float | int) for v in low_high) or not low_high[0] <= low_high[1]:
        raise BundleError(f"{path}: map_scale is {low_high!r}, expected two numbers, the lower first")
    precision = manifest["precision"]
    if precision.get("name") not in PRECISIONS or not _are_limits(precision.get("limits")):
        raise BundleError(
            f"{path}: precision is {precision!r}, expected a name ({', '.join(PRECISIONS)}) and limits of errors"
        )
    accepted = precision.get("accepted")
    if accepted is not None and not (isinstance(accepted, dict) and isinstance(accepted.get("engine"), str)):
        raise BundleError(
            f"{path}: precision.accepted is {accepted!r}, expected null, or the figures with their engine"
        )
    if not manifest["spread"] > 0:
        raise BundleError(f"{path}: spread is {manifest['spread']!r}, expected a positive number")
    if not isinstance(seen, list) or not all(isinstance(digest, str) for digest in seen):
        raise BundleError(f"{path}: training.seen is {type(seen).__name__}, expected a list of hashes")
    if not isinstance(manifest["training"].get("counts"), dict):
        raise BundleError(f"{path}: training.counts is missing, expected the pictures in each part")


def _are_limits(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 3 and all(isinstance(v, float) and v > 0 for v in found)


def _checked(folder: Path, name: str, entry: Any) -> bytes:
    path = folder / name
    if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int):
        raise BundleError(f"{folder}/manifest.json has no hash and size of {name}; export the bundle again")
    data = _read(path, FILE_BYTES)
    if len(data) != entry["bytes"]:
        raise BundleError(f"{path} has {len(data)} bytes, the manifest says {entry['bytes']}; copy the bundle again")
    if (digest := hashlib.sha256(data).hexdigest()) != entry.get("sha256"):
        raise BundleError(f"{path} has been altered: sha256 {digest}, the manifest says {entry.get('sha256')}")
    return data


def _read(path: Path, most: int) -> bytes:
    """The bytes of a plain file; links, pipes and what is larger than `most` are refused unread."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise BundleError(f"{path} is missing or no plain file ({error.strerror}); export the bundle again") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is missing or no plain file; export the bundle again")
        if status.st_size > most:
            raise BundleError(f"{path} has {status.st_size} bytes, expected at most {most}")
        return file.read()
