"""The training of HistAuGAN: epochs of steps, and the styles that its domains turn out to have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from normscan.generate.card import Pixels, Source
from normscan.generate.histaugan.config import HistauganConfig
from normscan.generate.histaugan.domains import domains_of
from normscan.generate.histaugan.losses import spread
from normscan.generate.histaugan.network import Histaugan, Style
from normscan.generate.histaugan.pictures import Pictures, draws, one_hot, steps
from normscan.generate.histaugan.step import HistauganStep
from normscan.generate.pictures import to_pixels
from normscan.progress import Bar, say

SHOWN = 5
"""Rows of a contact sheet, and its columns with the style of a real picture; as many again have a drawn one."""
_PARTS = ("network", "critics", "content_critic", "optimizer", "critics_optimizer", "content_optimizer")


class HistauganTraining:
    """What the common training runs; see `card.Training`."""

    unit = "epoch"

    def __init__(self, config: HistauganConfig, sources: Sequence[Source], device: torch.device) -> None:
        self.config, self.device, self.count = config, device, config.epochs
        self.domains = domains_of(config, sources)
        say("domains: " + ", ".join(f"{domain.name} {len(domain.paths)}" for domain in self.domains))
        torch.manual_seed(config.seed)
        self.network = Histaugan(config, len(self.domains)).to(device)
        self.step = HistauganStep(self.network, config, len(self.domains))
        self.pictures = Pictures(config)

    def title(self, index: int) -> str:
        """What stands before the bar."""
        return f"epoch {index + 1}/{self.count}"

    def length(self, index: int) -> int:
        """Steps of an epoch, the same for all."""
        del index
        return steps(self.domains, self.config)

    def run(self, index: int, shown: Bar) -> dict[str, float]:
        """One epoch; returns the mean of each loss over the steps that had it."""
        found: dict[str, list[float]] = defaultdict(list)
        for x, domain in draws(self.pictures, self.domains, epoch=index):
            losses = self.step.step(x.to(self.device), domain.to(self.device))
            for name, value in losses.items():
                found[name].append(value)
            shown.advance(1, loss=losses["loss"])
        return {name: float(np.mean(values)) for name, values in found.items()}

    def sheet(self) -> Mapping[str, Sequence[Pixels]]:
        """Rows of content, columns of style: that of real pictures, which head the columns, then drawn ones."""
        self._measure_styles()
        count = len(self.domains)
        donors = [(k % count, self._spaced(k % count, k // count)) for k in range(SHOWN)]
        codes = [(k, self._styles([path], k).mean) for k, path in donors]
        generator = torch.Generator().manual_seed(self.config.seed)
        for k, _ in donors:
            noise = torch.randn((1, self.config.style), generator=generator).to(self.device)
            codes.append((k, self.network.style_mean[k] + self.network.style_std[k] * noise))
        blank = np.full((8, 8), 255, np.uint8)
        rows = {"styles of these, and drawn": [blank, *(self._real(path) for _, path in donors), *[blank] * SHOWN]}
        for row in range(SHOWN):
            path = self._spaced(row % count, row // count + SHOWN)
            domain = self.domains[row % count].name
            rows[f"content {row + 1}: {domain}"] = [self._real(path), *(self._restyled(path, *code) for code in codes)]
        return rows

    def weights(self) -> dict[str, Tensor]:
        """The network's, the domains' styles among them."""
        self._measure_styles()
        return {f"network.{name}": value for name, value in self.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, random state, count of steps."""
        step = self.step
        parts = {name: part.state_dict() for name in _PARTS if (part := getattr(step, name)) is not None}
        return {**parts, "generator": step.generator.get_state(), "count": step.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in _PARTS:
            if (part := getattr(self.step, name)) is not None:
                part.load_state_dict(state[name])
        self.step.generator.set_state(state["generator"])
        self.step.count = state["count"]

    def _measure_styles(self) -> None:
        for k, domain in enumerate(self.domains):
            self.network.style_mean[k], self.network.style_std[k] = spread(self._styles(domain.paths, k))

    @torch.no_grad()
    def _styles(self, paths: Iterable[Path], domain: int) -> Style:
        """Styles of whole pictures, one at a time: their sizes may differ."""
        code = one_hot([domain], len(self.domains)).to(self.device)
        found = [self.network.attribute(self.pictures[path][None].to(self.device), code) for path in paths]
        return Style(torch.cat([style.mean for style in found]), torch.cat([style.log_variance for style in found]))

    @torch.no_grad()
    def _restyled(self, path: Path, domain: int, style: Tensor) -> Pixels:
        code = one_hot([domain], len(self.domains)).to(self.device)
        return to_pixels(self.network(self.pictures[path][None].to(self.device), style.reshape(1, -1), code))

    def _real(self, path: Path) -> Pixels:
        return to_pixels(self.pictures[path][None])

    def _spaced(self, domain: int, place: int) -> Path:
        """Some picture of a domain, far from the one of the place before."""
        paths = self.domains[domain].paths
        return paths[(place * 7919) % len(paths)]
