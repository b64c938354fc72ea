"""The bundle: a folder with everything that scoring needs, verified before anything in it is parsed.

manifest.json       spec, calibration, provenance; the hash of every other file, and its own
model.onnx          the network, weights inside
stats.safetensors   the Gaussians of the spec's terms
golden.safetensors  8 inputs with torch's outputs, maps and scores: `verify` replays them
card.md             the model card
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from normscan.errors import BundleError, ConfigError, InputError
from normscan.files import canonical_json, read_json, sha256, write_json
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec

SCHEMA = 1
FILES = ("card.md", "golden.safetensors", "model.onnx", "stats.safetensors")
MANIFEST_BYTES = 16 << 20
"""A larger manifest is refused unread."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked."""

    folder: Path
    manifest: dict[str, Any]
    spec: ScoringSpec

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Verify and read; anything missing, altered, unsafe or unknown is a `BundleError` naming file or field."""
        manifest = _manifest(folder)
        for name in FILES:
            _check_file(folder, name, manifest["files"].get(name))
        if extra := sorted(set(manifest["files"]) - set(FILES)):
            raise BundleError(f"{folder}/manifest.json names {extra[0]!r}, expected only {', '.join(FILES)}")
        try:
            spec = ScoringSpec.from_json(canonical_json(manifest["spec"]))
        except ConfigError as error:
            raise BundleError(f"{folder}/manifest.json: spec: {error}") from error
        return cls(folder, manifest, spec)

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"

    def scorer(self) -> Scorer:
        """The native scorer with the bundle's statistics."""
        return Scorer(self.spec, self._tensors("stats.safetensors"))

    def golden(self) -> dict[str, np.ndarray]:
        """The recorded inputs, outputs, maps and scores."""
        return self._tensors("golden.safetensors")

    def _tensors(self, name: str) -> dict[str, np.ndarray]:
        try:
            return load((self.folder / name).read_bytes())
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{self.folder / name} cannot be read: {error}") from error


def write_manifest(folder: Path, fields: Mapping[str, Any]) -> None:
    """Add the files' hashes and sizes and the manifest's own hash, and write it."""
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in FILES}
    manifest = {"schema": SCHEMA, **fields, "files": files}
    write_json(folder / "manifest.json", {**manifest, "sha256": _own_hash(manifest)})


def is_bundle(folder: Path) -> bool:
    """True for a folder that holds, or should hold, a bundle."""
    return folder.suffix == ".normscan" or (folder / "model.onnx").exists()


def _own_hash(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not folder.is_dir():
        raise BundleError(f"{folder} is no folder, expected a bundle (made by `normscan export`)")
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or no plain file; export the bundle again")
    if (size := path.stat().st_size) > MANIFEST_BYTES:
        raise BundleError(f"{path} has {size} bytes, expected at most {MANIFEST_BYTES}")
    try:
        manifest = read_json(path)
    except InputError as error:
        raise BundleError(str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise BundleError(f"{path}: schema is {found!r}, expected {SCHEMA}; a newer normscan may be needed")
    try:
        expected = _own_hash(manifest)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    if manifest.get("sha256") != expected:
        raise BundleError(
            f"{path} has been altered: sha256 is {manifest.get('sha256')!r}, its content gives {expected}"
        )
    for field, kind in (("files", dict), ("spec", dict), ("outputs", list), ("spread", float), ("map_scale", list)):
        if not isinstance(manifest.get(field), kind):
            raise BundleError(f"{path}: {field} is {manifest.get(field)!r}, expected a {kind.__name__}")
    return manifest


def _check_file(folder: Path, name: str, entry: Any) -> None:
    path = folder / name
    if not isinstance(entry, dict):
        raise BundleError(f"{folder}/manifest.json has no hash of {name}; export the bundle again")
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or no plain file; export the bundle again")
    if (size := path.stat().st_size) != entry.get("bytes"):
        raise BundleError(f"{path} has {size} bytes, the manifest says {entry.get('bytes')}; copy the bundle again")
    if (digest := sha256(path)) != entry.get("sha256"):
        raise BundleError(f"{path} has been altered: sha256 {digest}, the manifest says {entry.get('sha256')}")
