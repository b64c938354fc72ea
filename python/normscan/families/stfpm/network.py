"""Teacher and student: one picture in, three levels of features from each out.

The map is fused by the native scorer and not in the graph, and each network has its own stem, because both were
measured (ONNX Runtime 1.31, 256 pixels, batch 1, two threads, CPU time): six maps 66.5 ms and 1.2 ms for the scorer;
fused in the graph 71.3 ms without blur and maximum; one stem of 128 channels for both 68.5 ms.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from normscan.families.stfpm.config import StfpmConfig
from normscan.nn.features import backbone
from normscan.nn.weights import load_backbone

LAYERS = ("layer1", "layer2", "layer3")


class StfpmOutputs(NamedTuple):
    """The network's named outputs, each [N,C,h,w] with h = H/4, H/8, H/16."""

    student_1: Tensor
    student_2: Tensor
    student_3: Tensor
    teacher_1: Tensor
    teacher_2: Tensor
    teacher_3: Tensor


class StfpmNetwork(nn.Module):
    """x [N,3,H,W], ImageNet-normalised -> `StfpmOutputs`; the same in training and evaluation."""

    def __init__(self, config: StfpmConfig) -> None:
        super().__init__()
        self.teacher = backbone(config.backbone, LAYERS, width=config.width, folded=True).requires_grad_(False)
        self.student = backbone(config.backbone, LAYERS, width=config.width)

    def forward(self, x: Tensor) -> StfpmOutputs:
        """Both read the same x."""
        return StfpmOutputs(*self.student(x), *self.teacher(x))


def start(network: StfpmNetwork, config: StfpmConfig) -> dict[str, str]:
    """Give the teacher its published weights -> where they are from."""
    return load_backbone(network.teacher, config.backbone, config.weights, seed=config.seed)
