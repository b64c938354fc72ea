"""Two games at once: encoder and generator against a critic of pictures and one of codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from normscan.families.family import Batch, Schedule
from normscan.families.sepiad.balance import Balance
from normscan.families.sepiad.config import SepiadConfig
from normscan.families.sepiad.network import SepiadNetwork, shrinking
from normscan.nn.blocks import SLOPE
from normscan.nn.losses import gradient_penalty, mixed, relative_perceptual_loss


def latent_critic(config: SepiadConfig) -> nn.Sequential:
    """Code [N,latent] -> score [N,1]."""
    layers: list[nn.Module] = []
    before = config.latent
    for width in config.latent_critic_widths:
        layers += [nn.Linear(before, width), nn.LeakyReLU(SLOPE)]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 1))


class SepiadStep:
    """A batch teaches the critics; every `critic_steps`-th teaches encoder and generator, too: one iteration.

    Critics: WGAN-GP with drift. Encoder: -D(E(x)) + w R, generator: -D(G(z)) + w' R, with R the relative perceptual L1
    between x and G(E(x)), and a weight for each of the two (`Balance`).
    """

    def __init__(self, network: SepiadNetwork, config: SepiadConfig) -> None:
        self.network, self.config = network, config
        steps = math.ceil(config.iterations * config.critic_steps / config.epochs)
        # As in the paper. Separation of planted anomalies would choose among the first epochs, of pictures still grey.
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every, steps=steps, keeps_last=True)
        device = next(network.parameters()).device
        self.image_critic = shrinking(config.channels, config.critic_widths, config.size, 1, config.gate).to(device)
        self.latent_critic = latent_critic(config).to(device)
        self.image_critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.critics = nn.ModuleList([self.image_critic, self.latent_critic])
        self.players = {
            "encoder": list(network.encoder.parameters()),
            "generator": list(network.generator.parameters()),
        }
        betas = (0.5, 0.99)
        self.optimizer = torch.optim.Adam(
            [p for player in self.players.values() for p in player], config.learning_rate, betas
        )
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), config.critic_learning_rate, betas)
        self.balance = {
            name: Balance(
                smoothing=config.balance_smoothing, records=config.balance_records, every=config.balance_every
            )
            for name in self.players
        }
        self.encode: Callable[[Tensor], Tensor] = torch.compile(network.encoder) if config.compile else network.encoder
        self.generate: Callable[[Tensor], Tensor] = (
            torch.compile(network.generator) if config.compile else network.generator
        )
        self.random = torch.Generator().manual_seed(config.seed)
        self.count = 0
        self.last: dict[str, float] = {}

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """The features' channel statistics, before anything else."""
        self.network.features.fit(batch.x for batch in loader)

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the critics, and perhaps one of the players."""
        critic = self._teach_critics(batch.x)
        if self.count % self.config.critic_steps == 0:
            self.last = self._teach_players(batch.x)
        self.count += 1
        return {**self.last, "critic": critic}

    def _prior(self, like: Tensor) -> Tensor:
        return torch.randn((len(like), self.config.latent), generator=self.random).to(like.device)

    def _teach_critics(self, x: Tensor) -> float:
        with torch.no_grad():
            prior = self._prior(x)
            fake, code = self.generate(prior), self.encode(x)
        self.critics.requires_grad_(True)
        loss = self._game(self.image_critic, x, fake) + self._game(self.latent_critic, prior, code)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        return loss.item()

    def _game(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Minus the critic's advantage, with penalty and drift."""
        on_real, on_fake = critic(torch.cat([real, fake.to(real)])).float().chunk(2)
        loss: Tensor = on_fake.mean() - on_real.mean() + self.config.drift * on_real.square().mean()
        if self.config.gradient_penalty:
            penalty = gradient_penalty(critic, mixed(real, fake.to(real), self.random))
            loss = loss + self.config.gradient_penalty * penalty
        return loss

    def _teach_players(self, x: Tensor) -> dict[str, float]:
        """One backward pass through each network: the encoder's waits for what comes back to the code."""
        self.critics.requires_grad_(False)
        encoder, generator = self.players["encoder"], self.players["generator"]
        recording = self.balance["encoder"].iterations % self.config.record_every == 0
        # A compiled network gives its gradients once, and a record takes them twice.
        code = (self.network.encoder if recording else self.encode)(x)
        cut = code.detach().requires_grad_(True)
        fake, rebuilt = self.generate(self._prior(x)), self.generate(cut)
        with torch.no_grad():
            original = self.network.features(x)
        reconstruction = relative_perceptual_loss(self.network.features(rebuilt), original)
        on_fake, on_code = self.image_critic(fake).float().mean(), self.latent_critic(cut).float().mean()

        (push,) = torch.autograd.grad(-on_code, cut)
        game = torch.autograd.grad(-on_fake, generator)
        *rebuild, pull = torch.autograd.grad(reconstruction, [*generator, cut])
        weights = {name: balance.weight for name, balance in self.balance.items()}
        if recording:
            weights = self._record(code, push, pull, game, rebuild)
        encoded = torch.autograd.grad(code, encoder, (push + weights["encoder"] * pull).to(code))
        for parameter, gradient in zip(encoder, encoded, strict=True):
            parameter.grad = gradient
        for parameter, a, b in zip(generator, game, rebuild, strict=True):
            parameter.grad = a + weights["generator"] * b
        self.optimizer.step()
        for balance in self.balance.values():
            balance.advance()
        return {
            "loss": reconstruction.item(),
            "image_critic": on_fake.item(),
            "latent_critic": on_code.item(),
            **{f"weight_{name}": weight for name, weight in weights.items()},
        }

    def _record(
        self, code: Tensor, push: Tensor, pull: Tensor, game: Iterable[Tensor], rebuild: Iterable[Tensor]
    ) -> dict[str, float]:
        """Record both losses' gradients of every layer -> the weights, which the first record changes."""
        encoder, generator = self.players["encoder"], self.players["generator"]
        parts = [torch.autograd.grad(code, encoder, g.to(code), retain_graph=True) for g in (push, pull)]
        self.balance["encoder"].record(*(_layers(encoder, part) for part in parts))
        self.balance["generator"].record(_layers(generator, game), _layers(generator, rebuild))
        return {name: balance.weight for name, balance in self.balance.items()}

    def validated(self, stale: int) -> None:
        """The rates stay."""

    def state_dict(self) -> dict[str, Any]:
        """Critics, optimisers, balances, random state."""
        return {
            **{name: getattr(self, name).state_dict() for name in self._stateful},
            "balance": {name: balance.state_dict() for name, balance in self.balance.items()},
            "random": self.random.get_state(),
            "count": self.count,
            "last": self.last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in self._stateful:
            getattr(self, name).load_state_dict(state[name])
        for name, balance in self.balance.items():
            balance.load_state_dict(state["balance"][name])
        self.random.set_state(state["random"])
        self.count, self.last = int(state["count"]), dict(state["last"])

    _stateful = ("critics", "optimizer", "critic_optimizer")


def _layers(parameters: Iterable[Tensor], gradients: Iterable[Tensor]) -> list[Tensor]:
    """The gradients of convolutions and linear layers, biases apart."""
    return [g for p, g in zip(parameters, gradients, strict=True) if p.dim() > 1]
