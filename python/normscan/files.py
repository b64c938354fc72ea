"""Writing files so that nothing half-written ever stays behind: temporary name, fsync, rename."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from normscan.errors import InputError, OutputError, UsageError


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    try:
        if not path.is_file():  # a pipe would wait for a writer
            raise InputError(f"{path}: no such file; it was moved or deleted, or the name is misspelt")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    """Parse a JSON file; an `InputError` names the file and the place."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity become null, which JSON can express."""
    write_bytes(path, (json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; an `OutputError` names the file where the disk refuses."""
    with temporary_file(path) as temporary:
        temporary.write_bytes(content)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; numbers in their shortest exact form."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and renamed to `path`, on failure removed."""
    path = path.absolute()
    temporary = path.with_name(f".{path.name[:200]}.{uuid4().hex[:8]}")
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # it is gone after a success, and where its folder is no folder there never was one
            temporary.unlink()


@contextmanager
def temporary_folder(
    path: Path, *, force: bool = False, ours: Callable[[Path], bool] = lambda folder: False
) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success it becomes `path`, on failure it is removed.

    An existing `path` is a `UsageError`, unless `force` and `ours(path)`, which says that normscan wrote all of it; it
    is then replaced once the new one is complete, and put back where that fails.
    """
    path = path.absolute()
    check_free(path, force=force, ours=ours)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    old = path.with_name(f".{path.name}.old-{uuid4().hex[:8]}")
    try:
        with told(path):
            temporary.mkdir(parents=True)
        yield temporary
        with told(path):
            for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
                _sync(file)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            _sync(path.parent)
    except OutputError as error:  # name the file as it would have been called, not the temporary one
        raise OutputError(str(error).replace(str(temporary), str(path))) from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def check_free(path: Path, *, force: bool, ours: Callable[[Path], bool]) -> None:
    """Raise a `UsageError` unless `path` may be written: it is not there, or `force` is given and it is `ours`."""
    if path == Path(path.anchor):
        raise UsageError(f"{path} is the root of the file system; choose a folder in it")
    if not (path.exists() or path.is_symlink()):
        return
    if not force:
        raise UsageError(f"{path} exists; choose another name or overwrite it with --force")
    if path.is_symlink() or not path.is_dir() or not ours(path):
        raise UsageError(f"{path} exists and holds what normscan did not write; choose another name")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an `OutputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another -o"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
