"""One game: the generator's pictures of unlabelled ones against a critic that knows normals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normscan.errors import ArgumentError
from normscan.families.family import Batch, Schedule
from normscan.families.sagan.config import SaganConfig
from normscan.families.sagan.network import SaganNetwork, SaganOutputs
from normscan.nn.blocks import SLOPE
from normscan.nn.losses import gradient_penalty, mixed
from normscan.nn.rates import set_rate

_MOST_CONVOLUTIONS = 6
_CENTER = (0.2, 0.8)
_HALF_WIDTH = (0.05, 0.2)


def critic(config: SaganConfig) -> nn.Sequential:
    """Picture [N,C,size,size] -> score [N,1]: conv4 of stride 2, six from 64 pixels on, and a linear layer."""
    layers: list[nn.Module] = []
    before: int = config.channels
    side = config.size
    for level in range(min(_MOST_CONVOLUTIONS, config.size.bit_length() - 1)):
        width = config.critic_width << level
        layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        before, side = width, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, 1))


def damaged(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blend a square of each picture x [N,C,H,W] with the same place of another one, by a share of 0 to 1.

    The square's centre lies in the central 60 %, its half width is 5 to 20 % of the side (FPI, Tan et al. 2020, arXiv
    2011.04197; the numbers are SAGAN's).
    """
    count, _, height, width = x.shape
    donor = (torch.arange(count) + 1 + torch.randint(max(count - 1, 1), (count,), generator=generator)) % max(count, 1)
    row, col, half, share = torch.rand((4, count, 1), generator=generator).to(x.device)
    half = _between(half, _HALF_WIDTH)
    rows, cols = ((torch.arange(side, device=x.device) + 0.5) / side for side in (height, width))
    inside_rows = (rows - _between(row, _CENTER)).abs() <= half
    inside_cols = (cols - _between(col, _CENTER)).abs() <= half
    inside = inside_rows[:, None, :, None] & inside_cols[:, None, None, :]
    return torch.lerp(x, x[donor.to(x.device)], (inside * share[:, :, None, None]).to(x))


def _between(u: Tensor, ends: tuple[float, float]) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * u


class SaganStep:
    """A batch teaches the critic; every `critic_steps`-th teaches the generator, too: one iteration.

    With normals x, unlabelled u, damaged normals d, generator G, critic D (WGAN-GP; no cycle):
    critic -D(x) + D(G(u)) + penalty, generator -D(G(u)) + |x - G(x)| + (x - G(d))^2. One-class: u = d.
    """

    def __init__(self, network: SaganNetwork, config: SaganConfig) -> None:
        self.network, self.config = network, config
        steps = math.ceil(config.iterations * config.critic_steps / config.epochs)
        self.total = steps * config.epochs
        self.schedule = Schedule(
            config.epochs,
            config.patience,
            config.validate_every,
            restores="restored",
            steps=steps,
            unlabelled=config.mode == "semi_supervised",
        )
        self.critic = critic(config).to(next(network.parameters()).device)
        self.critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        betas = (0.5, 0.999)
        self.optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, betas)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.learning_rate, betas)
        self.generate: Callable[[Tensor, Tensor], SaganOutputs] = torch.compile(network) if config.compile else network
        self.random = torch.Generator().manual_seed(config.seed)
        self.count = 0
        self.last: dict[str, float] = {}

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Nothing: the rate follows the steps."""

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the critic, and perhaps one of the generator."""
        for optimizer in (self.optimizer, self.critic_optimizer):
            set_rate(optimizer, self.config.learning_rate, self.config.decay, self.count / self.total)
        x, bad = batch.x, damaged(batch.x, self.random)
        chance = torch.rand((len(x), 1, *x.shape[2:]), generator=self.random)
        kept = (chance < self.config.keep).to(x.device)
        critic = self._teach(x, bad, self._unlabelled(batch, bad), kept)
        self.count += 1
        return {**self.last, "critic": critic}

    def _unlabelled(self, batch: Batch, bad: Tensor) -> Tensor:
        if self.config.mode == "one_class":
            return bad
        if batch.unlabelled is None or batch.unlabelled.shape != batch.x.shape:
            found = None if batch.unlabelled is None else list(batch.unlabelled.shape)
            raise ArgumentError(f"step: batch.unlabelled has shape {found}, expected that of x, {list(batch.x.shape)}")
        return batch.unlabelled

    def _teach(self, x: Tensor, bad: Tensor, unlabelled: Tensor, kept: Tensor) -> float:
        """All pictures go through the generator once, in one batch; without a graph where the critic learns alone."""
        both = self.count % self.config.critic_steps == 0
        parts = [x, bad, *([] if unlabelled is bad else [unlabelled])] if both else [unlabelled]
        with torch.set_grad_enabled(both):
            restored = self.generate(torch.cat(parts), kept.repeat(len(parts), 1, 1, 1)).restored.chunk(len(parts))
        critic = self._teach_critic(x, restored[-1].detach())
        if both:
            self.last = self._teach_generator(x, restored[0], restored[1], restored[-1])
        return critic

    def _teach_critic(self, x: Tensor, fake: Tensor) -> float:
        self.critic.requires_grad_(True)
        on_real, on_fake = self.critic(torch.cat([x, fake])).float().chunk(2)
        penalty = gradient_penalty(self.critic, mixed(x, fake, self.random))
        loss: Tensor = on_fake.mean() - on_real.mean() + self.config.gradient_penalty * penalty
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        return loss.item()

    def _teach_generator(self, x: Tensor, same: Tensor, mended: Tensor, fake: Tensor) -> dict[str, float]:
        """From what it made of x, of the damaged x and of the unlabelled pictures."""
        self.critic.requires_grad_(False)
        on_fake = self.critic(fake).float().mean()
        identity, restoration = F.l1_loss(same, x), F.mse_loss(mended, x)
        wanted = self.config.identity * identity + self.config.restoration * restoration
        self.optimizer.zero_grad(set_to_none=True)
        (wanted - on_fake).backward()
        self.optimizer.step()
        return {
            "loss": wanted.item(),
            "identity": identity.item(),
            "restoration": restoration.item(),
            "on_fake": on_fake.item(),
        }

    def validated(self, stale: int) -> None:
        """The rate follows the steps, not the validations."""

    def state_dict(self) -> dict[str, Any]:
        """Critic, optimisers, random state, and how many steps were done."""
        return {
            **{name: getattr(self, name).state_dict() for name in self._stateful},
            "random": self.random.get_state(),
            "count": self.count,
            "last": self.last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in self._stateful:
            getattr(self, name).load_state_dict(state[name])
        self.random.set_state(state["random"])
        self.count, self.last = int(state["count"]), dict(state["last"])

    _stateful = ("critic", "optimizer", "critic_optimizer")
