"""Backbones whose middle layers are compared: ResNets, and VGG19 up to the layer that perceptual losses take.

State-dict names equal torchvision's, so that published weights load as they are. A backbone ends at the deepest layer
asked for. A *folded* one has no batch norm: its convolutions carry it in weight and bias, which is what a frozen
network computes anyway, in fewer passes over memory. `normscan.nn.weights` reads the files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normscan.errors import ArgumentError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What published networks expect their input, in 0..1, to be standardised by."""
RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_EPS = 1e-5  # of every batch norm here, torch's default, which torchvision and timm keep


def _norm(channels: int, folded: bool) -> nn.Module:
    return nn.Identity() if folded else nn.BatchNorm2d(channels, _EPS)


def _conv(channels: int, width: int, kernel: int, stride: int, folded: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=folded)


class _Block(nn.Module):
    """What both kinds of block share: the way past them, a 1x1 convolution where the shape changes."""

    downsample: nn.Sequential | None

    def __init__(self, channels: int, width: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.downsample = None
        if stride != 1 or channels != width:
            conv = _conv(channels, width, 1, stride, folded)
            self.downsample = nn.Sequential(conv) if folded else nn.Sequential(conv, _norm(width, folded))
        self.relu = nn.ReLU(inplace=True)

    def _past(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(_Block):
    """conv3, conv3 (He et al. 2016, ResNet18 and 34)."""

    def __init__(self, channels: int, planes: int, stride: int, base: float, folded: bool) -> None:
        del base
        super().__init__(channels, planes, stride, folded)
        self.conv1 = _conv(channels, planes, 3, stride, folded)
        self.bn1 = _norm(planes, folded)
        self.conv2 = _conv(planes, planes, 3, 1, folded)
        self.bn2 = _norm(planes, folded)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,planes,H/stride,W/stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        found: Tensor = self.relu(y + self._past(x))
        return found


class Bottleneck(_Block):
    """conv1, conv3 (with the stride, as torchvision), conv1 to four times the planes."""

    def __init__(self, channels: int, planes: int, stride: int, base: float, folded: bool) -> None:
        super().__init__(channels, 4 * planes, stride, folded)
        inner = int(planes * base)
        self.conv1 = _conv(channels, inner, 1, 1, folded)
        self.bn1 = _norm(inner, folded)
        self.conv2 = _conv(inner, inner, 3, stride, folded)
        self.bn2 = _norm(inner, folded)
        self.conv3 = _conv(inner, 4 * planes, 1, 1, folded)
        self.bn3 = _norm(4 * planes, folded)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,4*planes,H/stride,W/stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        found: Tensor = self.relu(y + self._past(x))
        return found


class ResNet(nn.Module):
    """x [N,3,H,W] -> the asked-for layers in their own order; layerL has 1/2^(L+1) of the side."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        counts: Sequence[int],
        layers: Sequence[str],
        *,
        base: float = 1.0,
        width: int = 64,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.conv1 = _conv(3, width, 7, 2, folded)
        self.bn1 = _norm(width, folded)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels, self.channels = width, []
        self._names = RESNET_LAYERS[: 1 + max(RESNET_LAYERS.index(name) for name in layers)]
        for level, name in enumerate(self._names):
            planes = width << level
            blocks = []
            for i in range(counts[level]):
                blocks.append(block(channels, planes, 2 if level and i == 0 else 1, base, folded))
                channels = planes * (4 if block is Bottleneck else 1)
            setattr(self, name, nn.Sequential(*blocks))
            if name in layers:
                self.channels.append(channels)
        _initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The layers, shallow to deep."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found = []
        for name in self._names:
            x = getattr(self, name)(x)
            if name in self.layers:
                found.append(x)
        return tuple(found)


_VGG19 = (2, 2, 4, 4, 4)  # convolutions between two poolings, 64 to 512 channels


def _vgg_layers(width: int) -> tuple[list[nn.Module], dict[str, int]]:
    """torchvision's `features` of VGG19, and where each reluS_K stands in it."""
    modules: list[nn.Module] = []
    places: dict[str, int] = {}
    channels = 3
    for stage, count in enumerate(_VGG19, start=1):
        planes = width << min(stage - 1, 3)
        for k in range(1, count + 1):
            modules += [nn.Conv2d(channels, planes, 3, padding=1), nn.ReLU(inplace=True)]
            places[f"relu{stage}_{k}"] = len(modules) - 1
            channels = planes
        modules.append(nn.MaxPool2d(2))
    return modules, places


class Vgg19(nn.Module):
    """x [N,3,H,W] -> the asked-for layers, "relu1_1" to "relu5_4" (relu4_2: conv4_2 and its ReLU, PIAD's feature)."""

    def __init__(self, layers: Sequence[str], *, width: int = 64) -> None:
        super().__init__()
        modules, places = _vgg_layers(width)
        self.layers = tuple(layers)
        self._places = {places[name] for name in layers}
        self.features = nn.Sequential(*modules[: max(self._places) + 1])
        convs = {i: m.out_channels for i, m in enumerate(self.features) if isinstance(m, nn.Conv2d)}
        self.channels = [convs[place - 1] for place in sorted(self._places)]
        _initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The layers, shallow to deep."""
        found = []
        for place, module in enumerate(self.features):
            # What is handed out must not be overwritten by an in-place module; none follows a ReLU here.
            x = module(x)
            if place in self._places:
                found.append(x)
        return tuple(found)


Backbone = ResNet | Vgg19
_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], float]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1.0),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1.0),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 2.0),
}
BACKBONES = (*_RESNETS, "vgg19")
"""By torchvision's names."""


def backbone(name: str, layers: Sequence[str], *, width: int = 64, folded: bool = False) -> Backbone:
    """A backbone with random weights, ending at the deepest of `layers`.

    layers  "layer1" to "layer4", or "relu1_1" to "relu5_4" of vgg19; the outputs come shallow to deep
    width   channels of the first convolution; published weights have 64
    folded  convolutions with bias instead of batch norm; vgg19 has none anyway
    """
    check_layers(name, layers)
    if name == "vgg19":
        return Vgg19(layers, width=width)
    block, counts, base = _RESNETS[name]
    return ResNet(block, counts, layers, base=base, width=width, folded=folded)


def check_layers(name: str, layers: Sequence[str]) -> None:
    """Raise an `ArgumentError` for a backbone that does not exist, or layers that it does not have."""
    if name not in BACKBONES:
        raise ArgumentError(f"backbone is {name!r}, expected one of {', '.join(BACKBONES)}")
    known = tuple(_vgg_layers(1)[1]) if name == "vgg19" else RESNET_LAYERS
    if not layers or (wrong := [layer for layer in layers if layer not in known]):
        found = repr(wrong[0]) if layers else "empty"
        raise ArgumentError(f"layers of {name}: found {found}, expected some of {', '.join(known)}")


def _initialise(network: nn.Module) -> None:
    """He et al. 2015, as torchvision; biases begin at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch norm in evaluation mode, folded into the convolution before it; a state without any comes back as it is.

    conv w, BN (gamma, beta, mean, var): w' = w gamma / sqrt(var + eps), b' = beta - mean gamma / sqrt(var + eps), in
    float64. Names: bnK and downsample.1 fold into convK and downsample.0.
    """
    folded = dict(state)
    for name in [key.removesuffix("running_mean") for key in state if key.endswith("running_mean")]:
        gamma, beta, mean, var = (
            folded.pop(name + part).double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        folded.pop(name + "num_batches_tracked", None)
        conv = name.replace("downsample.1.", "downsample.0.") if "downsample" in name else _conv_of(name)
        factor = gamma / torch.sqrt(var + _EPS)
        weight = folded[conv + "weight"]
        folded[conv + "weight"] = (weight.double() * factor[:, None, None, None]).to(weight.dtype)
        folded[conv + "bias"] = (beta - mean * factor).to(weight.dtype)
    return folded


def _conv_of(norm: str) -> str:
    """layer1.0.bn2. -> layer1.0.conv2."""
    parent, _, last = norm.removesuffix(".").rpartition(".")
    return f"{parent}{'.' if parent else ''}conv{last.removeprefix('bn')}."
