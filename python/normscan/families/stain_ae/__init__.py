"""`stain_ae`: an auto-encoder of healthy stained tissue, judged by the red that it does not give back.

It learns patches of patients diagnosed negative. Immunostaining colours bacteria brown-red; what an auto-encoder has
never seen, it paints as the tissue around it, and the redness of picture and reconstruction differs there.

What the source does and we do not: R - (G + B) / 2 in eight bits, where G + B overflows and the threshold was tuned to
that; the mean over a patch as its score, in which a few rods drown (the preset `paper` does).
"""

from normscan.families.family import Family
from normscan.families.stain_ae.config import StainAeConfig
from normscan.families.stain_ae.network import StainAe
from normscan.families.stain_ae.spec import stain_ae_spec
from normscan.families.stain_ae.step import StainAeStep

FAMILY = Family(
    name="stain_ae",
    paper="Helicobacter pylori by autoencoders of healthy staining, Cano et al. 2023 (arXiv 2309.16053)",
    supervision="one_class",
    config=StainAeConfig,
    network=StainAe,
    stages=(StainAeStep,),
    spec=stain_ae_spec,
    tiny={"size": 16, "widths": (4, 8), "cut": 0.0, "epochs": 2, "batch_size": 8},
)
