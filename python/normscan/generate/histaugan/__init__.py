"""`histaugan`: pictures with the content of one and the style of another.

Content and style are encoded apart (see `network`), and two pictures exchange their styles twice: after the second
exchange both must be back. Critics see to it that what was exchanged looks real and, where there are several domains,
like its domain, and that nothing in the content tells the domain.

Domains are all pictures as one (`domains=one`), the folders in a folder, or clusters of colour; one good template may
come as a further domain. With one domain, the losses that ask for it are left out: they would be won by a constant.
"""

from normscan.generate.card import Generator
from normscan.generate.histaugan.config import HistauganConfig
from normscan.generate.histaugan.domains import histaugan_sources
from normscan.generate.histaugan.sample import HistauganOptions, histaugan_sample
from normscan.generate.histaugan.training import HistauganTraining

GENERATOR = Generator(
    name="histaugan",
    paper="HistAuGAN, Wagner et al., MICCAI 2021 (arXiv 2107.12357); base: DRIT++, Lee et al., IJCV 2020",
    config=HistauganConfig,
    options=HistauganOptions,
    sources=histaugan_sources,
    training=HistauganTraining,
    sample=histaugan_sample,
    tiny={"size": 16, "crop": 16, "width": 4, "blocks": 1, "style": 2, "epochs": 2, "batch_size": 2},
)
