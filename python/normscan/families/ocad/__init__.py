"""`ocad`: an attention auto-encoder with interpolated Gaussian descriptors, for skin lesions.

An encoder with multi-head self-attention and a decoder learn to reproduce normal pictures. Three losses shape the
latent: reconstruction (MAE + 1 - SSIM), a Gaussian's negative log-likelihood on the latents of the picture and of a
noisy copy, and a critic that must tell, from the *decoded* mixture of two latents, how much of each went in; the
auto-encoder learns to make mixtures look real, so that the space between normals decodes to normals.

A picture's score is the weighted sum of its reconstruction distance (SSIM and L1) and of the squared Mahalanobis
distance of its latents to the training latents' Gaussian (full covariance over channels, shared by all positions).

What the sources do and we do not: select the checkpoint by F1 on the test set, threshold a pixel error with a latent
quantity, train on the abnormal folder, give the critic a constant target, learn a Gaussian without its log term.
"""

from normscan.families.family import Family
from normscan.families.ocad.config import OcadConfig
from normscan.families.ocad.network import OcadNetwork
from normscan.families.ocad.spec import ocad_spec
from normscan.families.ocad.step import OcadStep

FAMILY = Family(
    name="ocad",
    paper="OCAD, attention-enhanced interpolated Gaussian descriptors; base: Chen et al., AAAI 2022 (arXiv 2101.10043)",
    supervision="one_class",
    config=OcadConfig,
    network=OcadNetwork,
    stages=(OcadStep,),
    spec=ocad_spec,
    tiny={"size": 16, "widths": (8, 8, 4), "heads": 2, "key_size": 4, "critic_width": 4, "epochs": 2, "batch_size": 4},
)
