"""Weights from files of every kind; a file that does not fit is named, with what is missing or wrong in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from normscan.errors import InputError, UsageError
from normscan.files import sha256
from normscan.nn.features import Backbone, backbone
from normscan.nn.weights import load_backbone

Saver = Callable[[dict[str, Tensor], Path], None]
SAVERS: dict[str, Saver] = {
    ".pth": torch.save,
    ".pt": lambda state, path: torch.save({"state_dict": state}, path),
    ".safetensors": save_file,
    ".npz": lambda state, path: np.savez(path, **{name: value.numpy() for name, value in state.items()}),
}


def small(*, folded: bool = False, depth: int = 2) -> Backbone:
    return backbone("resnet18", [f"layer{i}" for i in range(1, depth + 1)], width=4, folded=folded)


def same(a: Backbone, b: Backbone) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("folded", [False, True])
def test_every_kind_of_file_loads(suffix: str, folded: bool, tmp_path: Path) -> None:
    """A deeper file too: what lies below the layers asked for is left out."""
    torch.manual_seed(0)
    source, target = small(folded=folded, depth=3), small(folded=folded, depth=3)
    path = tmp_path / f"weights{suffix}"
    SAVERS[suffix](source.state_dict(), path)
    found = load_backbone(target, "resnet18", str(path))
    assert same(source, target)
    assert found == {"backbone": "resnet18", "origin": path.name, "sha256": sha256(path)}
    load_backbone(small(folded=folded, depth=1), "resnet18", str(path))


def test_batch_norm_is_folded_where_the_network_is(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    whole, folded = small().eval(), small(folded=True)
    torch.save(whole.state_dict(), path)
    load_backbone(folded, "resnet18", str(path))
    x = torch.rand(1, 3, 32, 32)
    for a, b in zip(whole(x), folded(x), strict=True):
        torch.testing.assert_close(a, b)


def test_random_weights_are_seeded_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    networks = [small(folded=True) for _ in range(3)]
    found = [load_backbone(n, "resnet18", "random", seed=s) for n, s in zip(networks, (1, 1, 2), strict=True)]
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])
    assert found[0]["sha256"] == found[1]["sha256"] != found[2]["sha256"]
    assert found[0]["origin"] == "random, seed 1"
    assert "weights are random (seed 1)" in capsys.readouterr().err


def write(tmp_path: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    state = dict(small(folded=True).state_dict())
    change(state)
    path = tmp_path / "weights.npz"
    SAVERS[".npz"](state, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv1.bias"), r"lacks conv1\.bias of 20 tensors \(1 are missing\)"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("layer2")],
            r"lacks layer2\.0\.downsample\.0\.weight, .*, .* and 7 more of 20 tensors \(10 are missing\)",
        ),
        (
            lambda s: s.update({"conv1.weight": torch.zeros(4, 1, 7, 7)}),
            r"conv1\.weight \[4, 1, 7, 7\], expected \[4, 3, 7, 7\] \(1 such\)",
        ),
        (lambda s: s["conv1.bias"].fill_(float("nan")), r"NaN or infinite in conv1\.bias"),
        (lambda s: s.clear(), "It is empty"),
        (lambda s: s.update({"bn9.running_mean": torch.zeros(4)}), r"cannot be folded.*bn9\.weight"),
    ],
)
def test_a_file_that_does_not_fit_is_told(
    change: Callable[[dict[str, Tensor]], None], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, change)
    network = small(folded=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load_backbone(network, "resnet18", str(path))
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_folded_file_for_a_network_with_batch_norm_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, lambda s: None)
    with pytest.raises(InputError, match="folded away, which only a folded"):
        load_backbone(small(), "resnet18", str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"nothing", "cannot be read as weights"),
        ("a.pth", b"nothing", "is damaged, or holds more than tensors"),
        ("a.safetensors", b"nothing", "cannot be read as weights"),
        ("a.bin", b"nothing", r"expected a file \(.pth, .pt, .safetensors, .npz\), torchvision, timm, or random"),
        ("missing.pth", None, r"missing\.pth: no such file"),
    ],
)
def test_a_file_that_is_none_is_told(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_backbone(small(), "resnet18", str(tmp_path / name))


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Touch(str(tmp_path / "ran"))}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        load_backbone(small(), "resnet18", str(tmp_path / "a.pth"))
    assert not (tmp_path / "ran").exists()


def test_something_else_than_a_state_is_told(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(InputError, match="holds a list, expected a state_dict"):
        load_backbone(small(), "resnet18", str(tmp_path / "a.pth"))


def test_a_hub_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normscan.nn.weights.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"torchvision is not installed; install it, or give a file"):
        load_backbone(small(), "resnet18", "torchvision")


def test_a_hub_gives_weights_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create_model(name: str, pretrained: bool) -> Backbone:
        asked.append((name, pretrained))
        if name == "resnet18.lost":
            raise OSError("no network")
        return small()

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setattr("normscan.nn.weights.find_spec", lambda name: object())
    found = load_backbone(small(folded=True), "resnet18", "timm:resnet18.a1_in1k")
    load_backbone(small(), "resnet18", "timm")
    assert found["origin"] == "timm:resnet18.a1_in1k"
    with pytest.raises(UsageError, match=r"timm does not give them \(no network\)"):
        load_backbone(small(), "resnet18", "timm:resnet18.lost")
    assert asked == [("resnet18.a1_in1k", True), ("resnet18", True), ("resnet18.lost", True)]
