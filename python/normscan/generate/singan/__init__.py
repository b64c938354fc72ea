"""`singan`: a generator learnt from a single picture, coarse to fine.

A pyramid of the picture, from 25 pixels on its shorter side to 250 on its longer one. At each scale a small
convolutional generator adds to the enlarged image of the scale below what patches of this scale look like, against a
critic that sees patches only (WGAN-GP). A fixed noise z* must give the picture itself; how far it is off sets how much
noise the next scale gets. The generators are convolutional, so that a sample may have any size, and may begin at any
scale, with the picture's own coarser scales or with another picture painted in its place.

What the published code does and we do not: round images to 8 bits whenever they are resized, and step the generator
three times on gradients of one and the same forward pass.
"""

from normscan.generate.card import Generator
from normscan.generate.singan.config import SinganConfig, SinganOptions
from normscan.generate.singan.sample import singan_sample, singan_sources
from normscan.generate.singan.training import SinganTraining

GENERATOR = Generator(
    name="singan",
    paper="Shaham, Dekel and Michaeli, SinGAN: learning a generative model from a single natural image, ICCV 2019",
    config=SinganConfig,
    options=SinganOptions,
    sources=singan_sources,
    training=SinganTraining,
    sample=singan_sample,
    tiny={"min_size": 12, "max_size": 24, "width": 4, "scales": 3, "iterations": 4},
)
