"""Weights for a backbone: from a file, from the hub of torchvision or timm, or random; checked before they are used."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from normscan.errors import InputError, UsageError
from normscan.files import sha256
from normscan.nn.features import fold
from normscan.progress import say

HUBS = ("torchvision", "timm")
SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")
_SHOWN = 3


def load_backbone(network: nn.Module, name: str, source: str, *, seed: int = 0) -> dict[str, str]:
    """Give `network` (of `features.backbone`, called `name` there) its weights -> where they are from, for a manifest.

    source  a file (.pth or .pt without code in it, .safetensors, .npz); "torchvision" or "timm", also with a name of
            theirs: "torchvision:IMAGENET1K_V2", "timm:resnet18.a1_in1k"; or "random", which says so aloud
    returns {"backbone", "origin", "sha256"}: of the file, or of the tensors where there is none

    Batch norm is folded where `network` is. What `network` does not have (deeper layers, the classifier) is left out.
    Raises InputError for a file that is missing, is none or does not fit, UsageError for a hub that is not there.
    """
    if source == "random":
        _randomise(network, seed)
        say(f"{name}: the weights are random (seed {seed}), and its features say little; give a file of trained ones")
        return {"backbone": name, "origin": f"random, seed {seed}", "sha256": _digest(network.state_dict())}
    if source.partition(":")[0] in HUBS:
        state = _from_hub(name, source)
        fit_state(network, state, source)
        return {"backbone": name, "origin": source, "sha256": _digest(state)}
    path = Path(source)
    digest = _checked(path)
    fit_state(network, read_state_file(path), str(path))
    return {"backbone": name, "origin": path.name, "sha256": digest}


def read_state_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; nothing in it is executed."""
    _checked(path)
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, EOFError, KeyError) as error:
        raise InputError(f"{path} cannot be read as weights ({error}); expected {', '.join(SUFFIXES)}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged, or holds more than tensors; expected a saved state_dict") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds a {type(found).__name__}, expected a state_dict: tensors by name")
    return dict(state)


def fit_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `network`, or raise an InputError that names what is missing or has another shape."""
    wanted = network.state_dict()
    given = dict(state)
    if not any(key.endswith("running_mean") for key in wanted):
        given = _folded(given, where)
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    if missing:
        found = f"{where} lacks {_some(missing)} of {len(wanted)} tensors ({len(missing)} are missing)"
        raise InputError(f"{found}; is it of another network?{_hint(given, missing)}")
    wrong = [
        f"{key} {list(given[key].shape)}, expected {list(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    if wrong:
        raise InputError(f"{where} does not fit: it has {'; '.join(wrong[:_SHOWN])} ({len(wrong)} such)")
    bad = [key for key in wanted if key in given and not bool(torch.isfinite(given[key]).all())]
    if bad:
        raise InputError(f"{where} has values that are NaN or infinite in {_some(bad)}")
    network.load_state_dict({key: given.get(key, value) for key, value in wanted.items()})


def _folded(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    try:
        return fold(state)
    except (KeyError, RuntimeError, IndexError) as error:
        raise InputError(f"{where}: its batch norm cannot be folded ({error}); is it of another network?") from error


def _hint(given: Mapping[str, Tensor], missing: list[str]) -> str:
    if any(key.endswith("running_mean") for key in missing) and any(key.endswith("conv1.bias") for key in given):
        return " Its batch norm is folded away, which only a folded (frozen) network takes"
    return f" It begins with {_some(sorted(given))}" if given else " It is empty"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _checked(path: Path) -> str:
    """The file's hash; a missing one, or one of another kind, is told with what else there is to give."""
    if path.suffix not in SUFFIXES:
        known = f"a file ({', '.join(SUFFIXES)}), {', '.join(HUBS)}, or random"
        raise InputError(f"weights {str(path)!r}: expected {known}")
    return sha256(path)


def _randomise(network: nn.Module, seed: int) -> None:
    """Seeded, whatever else drew from torch's generator before."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                weight = torch.empty(module.weight.shape)
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)
                module.weight.copy_(weight)


def _from_hub(name: str, source: str) -> dict[str, Tensor]:
    hub, _, which = source.partition(":")
    if find_spec(hub) is None:
        raise UsageError(
            f"weights {source!r}: {hub} is not installed; install it, or give a file: --set weights={name}.pth"
        )
    try:
        network: nn.Module = _TAKE[hub](name, which)
    except Exception as error:  # a hub raises whatever its HTTP library does
        raise UsageError(
            f"weights {source!r}: {hub} does not give them ({error}); give a file: --set weights={name}.pth"
        ) from error
    return dict(network.state_dict())


def _torchvision(name: str, which: str) -> Any:
    return import_module("torchvision.models").get_model(name, weights=which or "DEFAULT")


def _timm(name: str, which: str) -> Any:
    return import_module("timm").create_model(which or name, pretrained=True)


_TAKE = {"torchvision": _torchvision, "timm": _timm}


def _digest(state: Mapping[str, Tensor]) -> str:
    """A hash of tensors, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
