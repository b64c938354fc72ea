"""Checkpoints: a folder of safetensors and JSON, written under a temporary name and renamed. No pickle.

Nested state (an optimiser's, say) is split in two: its tensors by path, and a JSON skeleton that names them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from normscan.errors import BundleError, InputError
from normscan.files import read_json, temporary_folder, write_bytes, write_json

_NAME = re.compile(r"checkpoint-(\d{8})")


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write the next `folder/checkpoint-<n>` and remove the older ones; SIGKILL at any moment leaves a complete one."""
    newest = latest_checkpoint(folder)
    number = 1 if newest is None else int(newest.name.rpartition("-")[2]) + 1
    path = folder / f"checkpoint-{number:08d}"
    with temporary_folder(path) as temporary:
        write_state(temporary, state)
    for other in folder.iterdir():
        if other != path and (_NAME.fullmatch(other.name) or other.name.startswith(".")):
            shutil.rmtree(other, ignore_errors=True)
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return max(found, default=None)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state of dicts, lists, tensors and plain values into `folder`."""
    tensors: dict[str, Tensor] = {}
    write_json(folder / "state.json", _take_out(dict(state), "", tensors))
    write_bytes(folder / "tensors.safetensors", save(tensors))


def read_state(folder: Path) -> dict[str, Any]:
    """The inverse of `write_state`; an incomplete or altered folder is a `BundleError`."""
    try:
        tensors = load_file(folder / "tensors.safetensors")
        state: dict[str, Any] = _put_back(read_json(folder / "state.json"), tensors)
    except (OSError, SafetensorError, InputError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"checkpoint {folder} cannot be read ({error}); remove it to resume from an older one"
        ) from error
    return state


def _take_out(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"$tensor": path}
    if isinstance(value, Mapping):
        # JSON has text keys only, and an optimiser numbers its parameters: keys are kept as [key, value] pairs.
        return {"$dict": [[key, _take_out(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_take_out(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    json.dumps(value)  # anything else must be plain
    return value


def _put_back(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_back(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_put_back(item, tensors) for item in value["$tuple"])
    return {key: _put_back(item, tensors) for key, item in value["$dict"]}
