"""`patch_cnn`: a classifier of annotated patches, whose probabilities are a patient's evidence.

What a pathologist has annotated is little, and unevenly divided: classes weigh alike in the loss, patches are flipped,
warped and stained anew, and the probability is calibrated on patients that the training did not see.

What the source does and we do not: softmax before cross-entropy, folds that divide a patient, EfficientNetV2-M.
"""

from normscan.families.family import Family
from normscan.families.patch_cnn.config import PatchCnnConfig
from normscan.families.patch_cnn.network import PatchCnn, finish, start
from normscan.families.patch_cnn.spec import patch_cnn_spec
from normscan.families.patch_cnn.step import PatchCnnStep

FAMILY = Family(
    name="patch_cnn",
    paper="Theses of the UAB on the data of Cano, Musulen and Gil 2024 (arXiv 2412.13857), which has such baselines",
    supervision="supervised",
    config=PatchCnnConfig,
    network=PatchCnn,
    stages=(PatchCnnStep,),
    spec=patch_cnn_spec,
    start=start,
    finish=finish,
    tiny={"size": 32, "width": 4, "layer": "layer2", "weights": "random", "epochs": 2, "batch_size": 8},
)
