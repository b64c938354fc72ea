"""Training, scale by scale: WGAN-GP on patches, and reconstruction from the fixed noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.errors import InputError
from normscan.generate.card import Pixels, Source
from normscan.generate.pictures import read_picture, to_pixels
from normscan.generate.singan.config import SinganConfig
from normscan.generate.singan.network import ScaleGenerator, SinganNetwork, convolutions, initialise
from normscan.generate.singan.pyramid import pyramid_sizes, resized
from normscan.nn.losses import gradient_penalty
from normscan.progress import Bar

SHEET_SAMPLES = 5


class SinganTraining:
    """The training of one picture's pyramid; a unit is a scale."""

    unit = "scale"

    def __init__(self, config: SinganConfig, sources: Sequence[Source], device: torch.device) -> None:
        self.config = config
        picture = read_picture(sources[0].path)
        try:
            sizes = pyramid_sizes(picture.shape[-2], picture.shape[-1], config)
        except InputError as error:
            raise InputError(f"{sources[0].path}: {error}") from None
        self.count, self.trained = len(sizes), 0
        self.reals = [resized(picture, size).to(device) for size in sizes]
        self.random = torch.Generator().manual_seed(config.seed)
        self.network = SinganNetwork(config, picture.shape[1], sizes)
        initialise(self.network, self.random)
        self.network.z_star = torch.randn(self.network.z_star.shape, generator=self.random)
        self.network.to(device)
        self.critic: nn.Module | None = None

    def title(self, index: int) -> str:
        """The scale and its size."""
        height, width = self.reals[index].shape[-2:]
        return f"scale {index + 1}/{self.count} ({height} x {width})"

    def length(self, index: int) -> int:
        """Iterations; every scale has as many."""
        del index
        return self.config.iterations

    def run(self, index: int, shown: Bar) -> dict[str, float]:
        """Train one scale; the coarser ones stay as they are."""
        game = self._begin(index)
        sums: dict[str, float] = {}
        for _ in range(self.config.iterations):
            figures = game.iterate()
            shown.advance(1, **figures)
            sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
        game.generator.requires_grad_(False)
        self.critic, self.trained = game.critic, index + 1
        means = {name: value / self.config.iterations for name, value in sums.items()}
        return {**means, "amplitude": float(self.network.amplitudes[index])}

    def _begin(self, index: int) -> Game:
        """A new game, from the coarser scale's weights where those have the same shapes (paper, supplement)."""
        config, network = self.config, self.network
        critic = self._new_critic(index)
        initialise(critic, self.random)  # on the CPU, where its random state lies
        critic.to(self.reals[index].device)
        generator = network.scales[index]
        assert isinstance(generator, ScaleGenerator)
        if index and config.width_at(index) == config.width_at(index - 1):
            assert self.critic is not None
            critic.load_state_dict(self.critic.state_dict())
            generator.load_state_dict(network.scales[index - 1].state_dict())
        real = self.reals[index]
        size = (real.shape[-2], real.shape[-1])
        below = network.below(index, network.reconstruct(index), size)
        if index:  # the less the coarser scales have reconstructed, the more there is to invent
            network.amplitudes[index] = config.noise * F.mse_loss(below, real).sqrt()
        return Game(config, network, index, generator.requires_grad_(True), critic, real, below, self.random)

    def _new_critic(self, index: int) -> nn.Module:
        return convolutions(self.network.channels, 1, self.config.width_at(index), self.config.layers)

    def sheet(self) -> Mapping[str, Sequence[Pixels]]:
        """The picture, its reconstruction, and the same few draws every time, with and without the coarsest scale."""
        random = torch.Generator().manual_seed(self.config.seed)
        rows = {"real, reconstruction": [self.reals[self.trained - 1], self.network.reconstruct(self.trained)]}
        for start in range(min(2, self.trained)):
            caption = f"samples, --start-scale {start}"
            below = self.network.reconstruct(start)
            rows[caption] = [
                self.network.draw(random, self.trained, start=start, image=below) for _ in range(SHEET_SAMPLES)
            ]
        return {caption: [to_pixels(x) for x in row if x is not None] for caption, row in rows.items()}

    def weights(self) -> dict[str, Tensor]:
        """The stack, its noise and sizes."""
        return self.network.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Between two scales there is no optimiser's state; of the critics only the last is used again."""
        assert self.critic is not None
        return {
            "trained": self.trained,
            "network": self.network.state_dict(),
            "critic": self.critic.state_dict(),
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self.trained = state["trained"]
        self.network.load_state_dict(state["network"])
        self.critic = self._new_critic(self.trained - 1).to(self.reals[0].device)
        self.critic.load_state_dict(state["critic"])
        self.random.set_state(state["random"])


class Game:
    """Generator against critic at one scale, with their optimisers."""

    def __init__(
        self,
        config: SinganConfig,
        network: SinganNetwork,
        index: int,
        generator: ScaleGenerator,
        critic: nn.Module,
        real: Tensor,
        reconstructed_below: Tensor,
        random: torch.Generator,
    ) -> None:
        self.config, self.network, self.index = config, network, index
        self.generator, self.critic, self.real, self.random = generator, critic, real, random
        self._below = reconstructed_below
        self._noise = network.z_star if index == 0 else torch.zeros_like(reconstructed_below)
        self._optimisers = [self._adam(part) for part in (critic, generator)]
        after = max(1, round(config.decay_after * config.iterations))
        self._schedules = [
            torch.optim.lr_scheduler.MultiStepLR(optimiser, [after], config.decay) for optimiser in self._optimisers
        ]

    def _adam(self, part: nn.Module) -> torch.optim.Adam:
        config = self.config
        return torch.optim.Adam(part.parameters(), lr=config.learning_rate, betas=(config.momentum, 0.999))

    def iterate(self) -> dict[str, float]:
        """One iteration: the critic's steps, then the generator's on what the critic saw last."""
        size = (self.real.shape[-2], self.real.shape[-1])
        for _ in range(self.config.critic_steps):
            below = self.network.below(self.index, self.network.draw(self.random, self.index), size)
            noise = self.network.noise(self.index, size, self.random)
            wasserstein = self._critic_step(noise, below)
        for _ in range(self.config.generator_steps):
            reconstruction = self._generator_step(noise, below)
        for schedule in self._schedules:
            schedule.step()
        return {"wasserstein": wasserstein.item(), "reconstruction": reconstruction.item()}

    def _critic_step(self, noise: Tensor, below: Tensor) -> Tensor:
        """One step of the critic  ->  how much higher it rates the picture's patches than made ones."""
        with torch.no_grad():
            fake = self.generator(noise, below)
        difference: Tensor = self.critic(self.real).mean() - self.critic(fake).mean()
        loss = self._penalty(fake) * self.config.gradient_penalty - difference
        self._optimisers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimisers[0].step()
        return difference.detach()

    def _penalty(self, fake: Tensor) -> Tensor:
        """On a random mixture, the norm over channels at each pixel, as in the published code."""
        share = torch.rand(1, generator=self.random).to(fake.device)
        return gradient_penalty(self.critic, torch.lerp(fake, self.real, share), dims=(1,))

    def _generator_step(self, noise: Tensor, below: Tensor) -> Tensor:
        """One step of the generator  ->  mean squared error of the reconstruction."""
        self.critic.requires_grad_(False)
        made = self.critic(self.generator(noise, below)).mean()
        reconstruction = F.mse_loss(self.generator(self._noise, self._below), self.real)
        loss = reconstruction * self.config.reconstruction_weight - made
        self._optimisers[1].zero_grad()
        loss.backward()
        self._optimisers[1].step()
        self.critic.requires_grad_(True)
        return reconstruction.detach()
