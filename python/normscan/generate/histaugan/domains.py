"""Which pictures share a style: all, those of a folder, those of a cluster of colour; and the one good template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normscan.data.layouts import find_images, read_layout
from normscan.data.read import SUFFIXES, read_image
from normscan.errors import InputError, UsageError
from normscan.generate.card import OK, TEMPLATE, Source
from normscan.generate.histaugan.clusters import cluster, colour_statistics
from normscan.generate.histaugan.config import HistauganConfig

FEWEST = 2
"""Pictures of a domain: from one alone nobody can tell its style from its content."""


@dataclass(frozen=True)
class Domain:
    """Pictures of one style."""

    name: str
    paths: tuple[Path, ...]
    share: float
    """Of the draws in training; all shares together are 1."""


def histaugan_sources(data: Path | None, template: Path | None) -> list[Source]:
    """The training normals of a data set, or the pictures of a folder, each with the folder in it as domain.

    The template is a domain of its own. It needs the other pictures: one alone has no second content.
    """
    if data is None:
        raise UsageError("histaugan learns from pictures: name them with -i (a template comes beside them)")
    if (data / "train").is_dir():
        found = [Source(r.path) for r in read_layout(data) if r.split == "train" and r.label == 0]
    else:
        found = [Source(path, _folder(path, data)) for path in find_images(data)]
        _refuse_empty(data, {source.domain for source in found})
    if template is None:
        return found
    if not template.is_file():
        raise InputError(f"{template}: no such file; expected the one good template, a picture")
    others = [source for source in found if source.path.resolve() != template.resolve()]
    return [*others, Source(template, TEMPLATE)]


def domain_names(config: HistauganConfig, sources: Sequence[Source]) -> list[str]:
    """The domains' names in their order; the template, where there is one, is the last."""
    folders = sorted({source.domain for source in sources} - {TEMPLATE})
    names = {"one": [OK], "folders": folders, "clusters": [f"colour {i + 1}" for i in range(config.clusters)]}
    return [*names[config.domains], *([TEMPLATE] if any(s.domain == TEMPLATE for s in sources) else [])]


def domains_of(config: HistauganConfig, sources: Sequence[Source]) -> list[Domain]:
    """The domains that training draws from; one with too few pictures is an `InputError` that names it."""
    names = domain_names(config, sources)
    ordinary = [source for source in sources if source.domain != TEMPLATE]
    paths = [source.path for source in ordinary]
    if config.domains == "clusters":
        labels = _clusters(paths, config)
    elif config.domains == "folders":
        labels = [names.index(source.domain) for source in ordinary]
    else:
        labels = [0] * len(paths)
    shared = 1.0 - config.template_share if TEMPLATE in names else 1.0
    count = len(names) - (TEMPLATE in names)
    if config.domains == "folders" and count < 2:
        raise InputError(f"domains are folders, but {count} folder has images; expected two or more (or domains=one)")
    found = []
    for index, name in enumerate(names[:count]):
        chosen = tuple(path for path, label in zip(paths, labels, strict=True) if label == index)
        if len(chosen) < FEWEST:
            raise InputError(
                f"domain {name!r} has {len(chosen)} image{'' if len(chosen) == 1 else 's'}"
                f"{f' ({chosen[0]})' if chosen else ''}; expected at least {FEWEST}: add some, or choose other domains"
            )
        found.append(Domain(name, chosen, shared / count))
    templates = tuple(source.path for source in sources if source.domain == TEMPLATE)
    return [*found, *([Domain(TEMPLATE, templates, config.template_share)] if templates else [])]


def _clusters(paths: Sequence[Path], config: HistauganConfig) -> list[int]:
    """The cluster of each picture, numbered from dark to light."""
    if len(paths) < config.clusters * FEWEST:
        raise InputError(
            f"{len(paths)} images for {config.clusters} clusters; expected at least {config.clusters * FEWEST}"
        )
    features = np.stack([colour_statistics(read_image(path)) for path in paths])
    labels = cluster(features, config.clusters, seed=config.seed)
    lightness = [features[labels == k, 0].mean() if (labels == k).any() else np.inf for k in range(config.clusters)]
    return np.argsort(np.argsort(lightness))[labels].tolist()  # type: ignore[no-any-return]


def _folder(path: Path, data: Path) -> str:
    """The folder of `data` that a picture lies in; "ok" for one that lies in `data` itself, or is `data`."""
    parts = path.relative_to(data).parts if path.is_relative_to(data) else ()
    if len(parts) < 2:
        return OK
    if parts[0] == TEMPLATE:
        raise InputError(f"{data / TEMPLATE}: the name is the template's; rename the folder, or use --template")
    return parts[0]


def _refuse_empty(data: Path, domains: set[str]) -> None:
    """Where pictures lie in folders, one without any is a mistake rather than a domain."""
    if not data.is_dir() or OK in domains:
        return
    for folder in sorted(data.iterdir()):
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in domains:
            raise InputError(
                f"{folder}: the domain is empty; put {FEWEST} images or more ({', '.join(SUFFIXES)}) into it, or "
                "remove the folder"
            )
