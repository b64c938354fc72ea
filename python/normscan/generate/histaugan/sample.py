"""Sampling from HistAuGAN: the content of a real picture in a drawn style."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from normscan.config import BaseConfig
from normscan.data.layouts import find_images
from normscan.errors import InputError, UsageError
from normscan.generate.card import TEMPLATE, Made
from normscan.generate.histaugan.config import HistauganConfig
from normscan.generate.histaugan.domains import domain_names
from normscan.generate.histaugan.network import Histaugan
from normscan.generate.histaugan.pictures import Pictures, one_hot
from normscan.generate.model import Model
from normscan.generate.pictures import to_pixels


class HistauganOptions(BaseConfig):
    """What a call may choose."""

    input: Path | None = Field(None, description="pictures whose content is taken; else those learnt from")
    domain: str | None = Field(None, description="whose style is drawn; else any, equally often")
    style: Literal["domain", "prior"] = Field("domain", description="N(mean, std) of the domain, or N(0, I)")


def histaugan_sample(
    model: Model, options: HistauganOptions, seeds: Sequence[int], device: torch.device
) -> Iterator[Made]:
    """One picture a seed: its content, its domain and its style are drawn from that seed alone."""
    config = model.config
    assert isinstance(config, HistauganConfig)
    names = domain_names(config, model.sources)
    if options.domain is not None and options.domain not in names:
        raise UsageError(f"domain {options.domain!r} does not exist; there are: {', '.join(names)}")
    parents = _parents(model, options)
    network = Histaugan(config, len(names)).to(device)
    model.load_into(network, "network.")
    return _draw(network.eval(), config, options, names, parents, seeds)


def _draw(
    network: Histaugan,
    config: HistauganConfig,
    options: HistauganOptions,
    names: Sequence[str],
    parents: Sequence[Path],
    seeds: Sequence[int],
) -> Iterator[Made]:
    pictures = Pictures(config)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        parent = parents[int(rng.integers(len(parents)))]
        drawn = int(rng.integers(len(names)))
        domain = drawn if options.domain is None else names.index(options.domain)
        noise = torch.from_numpy(rng.standard_normal((1, config.style), np.float32)).to(network.style_mean)
        style = noise if options.style == "prior" else network.style_mean[domain] + network.style_std[domain] * noise
        origin = "generated_from_template" if names[domain] == TEMPLATE else "generated"
        yield Made(to_pixels(_restyled(network, pictures[parent], style, domain)), origin, seed, parent)


@torch.no_grad()
def _restyled(network: Histaugan, x: Tensor, style: Tensor, domain: int) -> Tensor:
    code = one_hot([domain], len(network.style_mean)).to(style)
    restyled: Tensor = network(x[None].to(style), style, code)
    return restyled


def _parents(model: Model, options: HistauganOptions) -> list[Path]:
    """Pictures to take content from; never the template's, whose content is not what is wanted more of."""
    if options.input is not None:
        return find_images(options.input)
    found = [source.path for source in model.sources if source.domain != TEMPLATE]
    if missing := [path for path in found if not path.is_file()]:
        raise InputError(
            f"{missing[0]} and {len(missing) - 1} other pictures that {model.folder} learnt from are gone; "
            "name others with -i"
        )
    return found
