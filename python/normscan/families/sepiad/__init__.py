"""`sepiad`: an auto-encoder between two WGAN games, judged by how far its picture is from the original to a network.

Encoder and generator have an adversary each: the generator's pictures of normal noise shall look like the normals, the
codes of normals shall look like normal noise. What is abnormal has no code of its own, so that its reconstruction
differs, in the features of a published network and in relation to their size. After every block a
squeeze-and-excitation gate weighs the channels; the preset `piad` is without.

What the source does and we do not: keep training pictures in the test list, compare two methods on different pictures.
"""

from normscan.families.family import Family
from normscan.families.sepiad.config import SepiadConfig
from normscan.families.sepiad.network import SepiadNetwork, start
from normscan.families.sepiad.spec import sepiad_spec
from normscan.families.sepiad.step import SepiadStep

FAMILY = Family(
    name="sepiad",
    paper="PIAD, perceptual image anomaly detection, Tuluptceva et al., ACPR 2019 (arXiv 1909.05904), with SE gates",
    supervision="one_class",
    config=SepiadConfig,
    network=SepiadNetwork,
    stages=(SepiadStep,),
    spec=sepiad_spec,
    start=start,
    tiny={
        "size": 16,
        "latent": 8,
        "encoder_widths": (8, 8),
        "generator_widths": (8, 8),
        "critic_widths": (4, 8),
        "latent_critic_widths": (16,),
        "backbone": "resnet18",
        "width": 4,
        "weights": "random",
        "layers": ("layer1", "layer2"),
        "iterations": 8,
        "epochs": 2,
        "critic_steps": 1,
        "batch_size": 8,
    },
)
