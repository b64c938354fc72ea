"""An engine that was built for some GPUs, in one file that says for which, of what, and by whom.

One line of JSON (the fingerprint, the engine's size and hash), a line feed, then the engine as its library made it. The
file lies beside the bundle, never in it: it fits one version of the library and some GPUs, the bundle fits all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from normscan.deploy.bundle import Bundle
from normscan.errors import BundleError
from normscan.files import canonical_json, write_bytes

MAGIC = "normscan-engine-1"
_HEADER_BYTES = 1 << 16
"""A longer first line is no header."""


@dataclass(frozen=True)
class Fingerprint:
    """What an engine depends on; where one thing differs, it is built again."""

    bundle: str
    """The bundle manifest's own hash."""
    library: str
    """"tensorrt" or "tensorrt-rtx"."""
    version: str
    gpus: tuple[str, ...]
    """Architectures ("sm86"), or, in words, the one GPU that it was built on, with its driver."""
    batch: tuple[int, int, int]
    """Least, usual and largest."""
    input: tuple[int, int, int]
    """Channels, height, width."""

    def differences(self, other: Fingerprint) -> str:
        """What is not the same, in words: of this one, then of the other; empty where nothing is."""
        pairs = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return "; ".join(f"{name} is {ours!r}, needed {theirs!r}" for (name, ours), theirs in pairs if ours != theirs)


@dataclass(frozen=True)
class EngineFile:
    """A built engine and its fingerprint."""

    fingerprint: Fingerprint
    engine: bytes

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        digest = hashlib.sha256(self.engine).hexdigest()
        header = {"magic": MAGIC, "bytes": len(self.engine), "sha256": digest, **asdict(self.fingerprint)}
        write_bytes(path, canonical_json(header).encode() + b"\n" + self.engine)

    @classmethod
    def read(cls, path: Path) -> EngineFile:
        """Every byte is checked; a `BundleError` says what is wrong with the file, and that it can be built again."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from error
        end = content.find(b"\n", 0, _HEADER_BYTES)
        try:
            header: dict[str, Any] = json.loads(content[:end] if end > 0 else b"")
            if header.pop("magic") != MAGIC:
                raise ValueError("another magic")
            size, digest = header.pop("bytes"), header.pop("sha256")
            fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in header.items()}
            fingerprint = Fingerprint(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is no engine of normscan ({error}); {_AGAIN}") from error
        engine = content[end + 1 :]
        if len(engine) != size:
            raise BundleError(f"{path} holds {len(engine)} bytes of an engine, its header says {size}; {_AGAIN}")
        if hashlib.sha256(engine).hexdigest() != digest:
            raise BundleError(f"{path} has been altered: its hash is not the one in its header; {_AGAIN}")
        return cls(fingerprint, engine)


_AGAIN = "build it again with normscan export BUNDLE --engine tensorrt-rtx (or tensorrt) --force"


def cache_folder(bundle: Bundle) -> Path:
    """Where the engines of a bundle lie: x.normscan -> x.engines."""
    folder = bundle.folder.absolute()
    return folder.with_name(f"{folder.name.removesuffix('.normscan')}.engines")
