"""Sampling: what is learnt from, and pictures drawn from a trained stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from normscan.data.layouts import find_images
from normscan.errors import InputError, UsageError
from normscan.generate.card import OK, TEMPLATE, Made, Source
from normscan.generate.model import Model
from normscan.generate.pictures import read_picture, to_pixels
from normscan.generate.singan.config import SinganConfig, SinganOptions
from normscan.generate.singan.network import SinganNetwork
from normscan.generate.singan.pyramid import Size, resized, scaled_sizes


def singan_sources(data: Path | None, template: Path | None) -> Sequence[Source]:
    """The one picture: an OK picture (a file, or the only one in a folder) or the template."""
    if (data is None) == (template is None):
        raise UsageError("singan learns from a single picture: give either -i IMAGE or --template IMAGE")
    if template is not None:
        return [Source(template, TEMPLATE)]
    assert data is not None
    found = find_images(data)
    if len(found) != 1:
        raise InputError(f"{data}: found {len(found)} pictures; singan learns from a single one, name it with -i")
    return [Source(found[0], OK)]


def singan_network(model: Model) -> SinganNetwork:
    """The trained stack; weights that do not fit are an `InputError` that names the file."""
    assert isinstance(model.config, SinganConfig)
    sizes = model.tensor("sizes")
    first = model.tensor("scales.0.convolutions.0.0.weight")
    if sizes.ndim != 2 or sizes.shape[1] != 2 or len(sizes) == 0 or bool((sizes < 1).any()) or first.ndim != 4:
        raise InputError(
            f"{model.weights_file}: sizes has shape {list(sizes.shape)}, the first weight {list(first.shape)}; "
            "expected [scales, 2] and [width, channels, 3, 3]: train again"
        )
    network = SinganNetwork(model.config, first.shape[1], [(int(h), int(w)) for h, w in sizes.tolist()])
    model.load_into(network)
    return network.requires_grad_(False)


def singan_sample(model: Model, options: SinganOptions, seeds: Sequence[int], device: torch.device) -> Iterator[Made]:
    """Draw one picture a seed: of any size, from any scale on, from a picture of one's own where there is one."""
    network = singan_network(model).to(device)
    own, start = network.own_sizes(), options.start_scale
    if start >= len(own):
        raise UsageError(f"start_scale is {start}; expected 0 (the coarsest) to {len(own) - 1} (the finest)")
    if options.input is not None and start == 0:
        raise UsageError("-i has no effect at start_scale 0, where all is drawn anew; choose a higher --start-scale")
    sizes = own if options.size is None else scaled_sizes(own, options.size)
    source = model.sources[0]
    parent = source.path if options.input is None else options.input
    origin = "generated" if source.domain == OK else "generated_from_template"
    image = _begin(network, options.input, start, sizes)
    return (Made(to_pixels(_drawn(network, seed, sizes, image, options)), origin, seed, parent) for seed in seeds)


def _begin(network: SinganNetwork, path: Path | None, start: int, sizes: Sequence[Size]) -> Tensor | None:
    """What scale `start` begins with, at the size of the scale below it."""
    if start == 0:
        return None
    image = network.reconstruct(start) if path is None else read_picture(path).to(network.z_star.device)
    assert image is not None
    if image.shape[1] != network.channels:
        raise InputError(f"{path}: found {image.shape[1]} channels; expected {network.channels}, as was learnt from")
    return resized(image, sizes[start - 1])


def _drawn(
    network: SinganNetwork, seed: int, sizes: Sequence[Size], image: Tensor | None, options: SinganOptions
) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    drawn = network.draw(
        random, len(sizes), sizes=sizes, start=options.start_scale, image=image, strength=options.noise
    )
    assert drawn is not None
    return drawn
