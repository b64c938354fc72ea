"""`sagan`: a generator gives every picture the look of a normal one, and is judged by what it changes.

Normals shall come back as they are, normals with a patch of another one as they were, and unlabelled pictures, normal
and abnormal mixed, so that a critic takes them for normals. The picture is cut into windows, each restored by the same
network, which is told the window's place.

What the source does and we do not: tanh(o + x), which no o makes x; scoring in training mode, so that the random mask
and the statistics of the batch are part of the score; the checkpoint chosen on the test set.
"""

from normscan.families.family import Family
from normscan.families.sagan.config import SaganConfig
from normscan.families.sagan.network import SaganNetwork
from normscan.families.sagan.spec import sagan_spec
from normscan.families.sagan.step import SaganStep

FAMILY = Family(
    name="sagan",
    paper="SAGAN, spatial-aware attention GAN for semi-supervised anomaly detection, Zhang et al., MICCAI 2024 "
    "(arXiv 2405.12872)",
    supervision="unlabelled",
    config=SaganConfig,
    network=SaganNetwork,
    stages=(SaganStep,),
    spec=sagan_spec,
    tiny={
        "size": 32,
        "grid": (1, 2),
        "channels": 3,
        "width": 4,
        "blocks": 1,
        "critic_width": 4,
        "mode": "one_class",
        "iterations": 8,
        "epochs": 2,
        "critic_steps": 1,
        "decay": "none",
        "learning_rate": 1e-3,
        "identity": 100.0,
        "restoration": 100.0,
        "batch_size": 8,
    },
)
