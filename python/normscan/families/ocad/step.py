"""One training step of `ocad`: the auto-encoder and its interpolation critic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from normscan.families.family import Batch, Schedule
from normscan.families.ocad.config import OcadConfig
from normscan.families.ocad.network import OcadNetwork
from normscan.nn.losses import GaussianDescriptor, reconstruction_loss


def interpolation_critic(channels: int, width: int) -> nn.Sequential:
    """Picture [N,C,H,W] -> predicted interpolation coefficient [N]."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 1),
        nn.Flatten(0),
    )


class OcadStep:
    """Losses (METHODS, ocad): 0.5 (MAE + 1 - SSIM) + 0.1 D(G(z_a))^2 + NLL(z1) + NLL(z2).

    z_a = alpha z_i + (1 - alpha) z_j with alpha ~ U(0, 0.5) per sample; the critic learns (D(G(z_a)) - alpha)^2 and
    D(x^ + 0.2 (x - x^))^2 (IGD, eq. 5).
    """

    def __init__(self, network: OcadNetwork, config: OcadConfig) -> None:
        device = next(network.parameters()).device
        self.network = network
        self.config = config
        self.schedule = Schedule(config.epochs, config.patience, config.validate_every)
        self.critic = interpolation_critic(config.channels, config.critic_width).to(device)
        self.descriptor = GaussianDescriptor(config.widths[-1]).to(device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self._generated = [*network.parameters(), *self.descriptor.parameters()]
        self.optimizer = torch.optim.Adam(self._generated, config.learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), config.learning_rate)

    def begin_epoch(self, loader: Iterable[Batch]) -> None:
        """Nothing changes between epochs."""

    def step(self, batch: Batch) -> dict[str, float]:
        """One update of the auto-encoder, then one of the critic."""
        x, config = batch.x, self.config
        noisy = x + config.noise * self._randn(x)
        z, z_noisy = self.network.encoder(torch.cat([x, noisy])).chunk(2)
        alpha = 0.5 * torch.rand(len(x), generator=self.generator, device=x.device)
        share = alpha[:, None, None, None]
        mixed = share * z + (1.0 - share) * z.roll(1, 0)
        reconstruction, interpolated = self.network.decoder(torch.cat([z, mixed])).chunk(2)

        rebuilt = config.reconstruction_weight * reconstruction_loss(reconstruction, x)
        fooled = config.critic_weight * self.critic(interpolated).square().mean()
        likelihood = config.gaussian_weight * (self.descriptor(z) + self.descriptor(z_noisy))
        loss = rebuilt + fooled + likelihood
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self._generated, config.gradient_clip)
        self.optimizer.step()

        critic = self._update_critic(x, reconstruction.detach(), interpolated.detach(), alpha)
        return {
            "loss": loss.item(),
            "reconstruction": rebuilt.item(),
            "gaussian": likelihood.item(),
            "adversarial": fooled.item(),
            "critic": critic,
        }

    def _update_critic(self, x: Tensor, reconstruction: Tensor, interpolated: Tensor, alpha: Tensor) -> float:
        nearly_real = reconstruction + 0.2 * (x - reconstruction)
        found, real = self.critic(torch.cat([interpolated, nearly_real])).chunk(2)
        loss: Tensor = (found - alpha).square().mean() + real.square().mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        return loss.item()

    def _randn(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    def validated(self, stale: int) -> None:
        """Halve the rate whenever `halve_after` validations have passed without gain."""
        if stale and stale % self.config.halve_after == 0:
            for optimizer in (self.optimizer, self.critic_optimizer):
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5

    def state_dict(self) -> dict[str, Any]:
        """Critic, descriptor, optimisers, random state."""
        parts = {name: getattr(self, name).state_dict() for name in self._stateful}
        return {**parts, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name in self._stateful:
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])

    _stateful = ("critic", "descriptor", "optimizer", "critic_optimizer")
