"""Backbones have the published names and shapes, and folding batch norm changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from normscan.errors import ArgumentError
from normscan.nn.features import BACKBONES, backbone, fold
from normscan.nn.weights import fit_state

RESNETS = ("resnet18", "resnet34", "wide_resnet50_2")
COUNTS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "wide_resnet50_2": (3, 4, 6, 3)}
# torchvision's published numbers of parameters, without fc (512 or 2048 x 1000 + 1000).
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "wide_resnet50_2": 68_883_240 - 2_049_000,
}
LEVELS = ("layer1", "layer2", "layer3")


def published_names(name: str, depth: int) -> Iterator[str]:
    """torchvision's names, by its rule."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    yield "conv1.weight"
    yield from (f"bn1.{part}" for part in norm)
    convs = 3 if name == "wide_resnet50_2" else 2
    for layer in range(1, depth + 1):
        for i in range(COUNTS[name][layer - 1]):
            for k in range(1, convs + 1):
                yield f"layer{layer}.{i}.conv{k}.weight"
                yield from (f"layer{layer}.{i}.bn{k}.{part}" for part in norm)
            if i == 0 and (layer > 1 or convs == 3):
                yield f"layer{layer}.{i}.downsample.0.weight"
                yield from (f"layer{layer}.{i}.downsample.1.{part}" for part in norm)


def lively(network: nn.Module) -> nn.Module:
    """Statistics and scales that are not the ones a fresh batch norm has."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                tensor.data.uniform_(low, low + 1.0, generator=generator)
            module.running_mean.normal_(0.0, 0.3, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_names_are_the_published_ones(name: str, depth: int) -> None:
    network = backbone(name, [f"layer{depth}"])
    assert set(network.state_dict()) == set(published_names(name, depth))
    if depth == 4:
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_vgg19_has_the_published_names_and_widths() -> None:
    convs = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256, 19: 512, 21: 512}
    network = backbone("vgg19", ["relu4_2"])
    state = network.state_dict()
    assert set(state) == {f"features.{i}.{part}" for i in convs for part in ("weight", "bias")}
    assert {i: len(state[f"features.{i}.bias"]) for i in convs} == convs
    (feature,) = network(torch.zeros(1, 3, 32, 32))
    assert feature.shape == (1, 512, 4, 4)
    assert (feature >= 0).all()


@pytest.mark.parametrize(("name", "channels"), [("resnet18", (64, 128, 256)), ("wide_resnet50_2", (256, 512, 1024))])
@torch.no_grad()
def test_layers_come_shallow_to_deep(name: str, channels: tuple[int, ...]) -> None:
    network = backbone(name, LEVELS[::-1])
    found = network.eval()(torch.zeros(1, 3, 64, 64))
    assert [tuple(f.shape) for f in found] == [(1, c, 16 >> i, 16 >> i) for i, c in enumerate(channels)]
    assert tuple(network.channels) == channels


@pytest.mark.parametrize("name", RESNETS)
@torch.no_grad()
def test_folding_changes_nothing(name: str) -> None:
    whole = lively(backbone(name, LEVELS, width=8))
    folded = backbone(name, LEVELS, width=8, folded=True)
    assert not any("bn" in key or "downsample.1" in key for key in folded.state_dict())
    fit_state(folded, whole.state_dict(), "here")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for a, b in zip(whole(x), folded(x), strict=True):
        assert (a - b).abs().max() <= 1e-5 * a.abs().max()


@torch.no_grad()
def test_folding_takes_the_statistics_in() -> None:
    """The comparison above is not between two networks that ignore them."""
    whole = lively(backbone("resnet18", ["layer1"], width=8))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = whole(x)[0].clone()
    whole.get_submodule("layer1.1.bn2").get_buffer("running_var").mul_(4.0)
    assert not torch.allclose(before, whole(x)[0], rtol=1e-2)


def test_what_has_no_batch_norm_folds_to_itself() -> None:
    state = backbone("resnet18", ["layer1"], width=4, folded=True).state_dict()
    folded = fold(dict(state))
    assert folded.keys() == state.keys()
    assert all(folded[name] is state[name] for name in state)


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("resnet50", ["layer1"], "backbone is 'resnet50', expected one of resnet18"),
        ("resnet18", ["layer5"], "found 'layer5', expected some of layer1"),
        ("resnet18", [], "layers of resnet18: found empty"),
        ("vgg19", ["layer1"], "found 'layer1', expected some of relu1_1"),
    ],
)
def test_wrong_names_are_told(name: str, layers: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        backbone(name, layers)


def test_every_backbone_is_tested() -> None:
    assert set(BACKBONES) == {*RESNETS, "vgg19"}
