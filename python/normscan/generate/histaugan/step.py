"""One training step of HistAuGAN: encoders, decoder, two image critics and a content critic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from normscan.generate.histaugan.config import HistauganConfig
from normscan.generate.histaugan.losses import adversarial_loss, confusion_loss, domain_loss, kl_loss
from normscan.generate.histaugan.network import Histaugan, ImageCritic, Verdict, content_critic

CONTENT_CLIP = 5.0
"""Of the content critic's gradient, as in DRIT++."""


class HistauganStep:
    """Losses (METHODS): domain 5, self and cross-cycle L1 10, content 0.01, KL 0.01, latent regression 10.

    A batch is two halves, a and b. Each half's content is decoded into the other's style and domain (`cross`), into
    its own (`own`), and into its own domain with a style from N(0, I) (`drawn`). Taken apart and put together a second
    time, the crossed pictures must give the first ones back (`back`). Where there is one domain, no loss asks for it.
    """

    def __init__(self, network: Histaugan, config: HistauganConfig, domains: int) -> None:
        device = next(network.parameters()).device
        self.network, self.config, self.domains = network, config, domains
        # One judges pictures with an encoded style, the other those with a drawn one.
        self.critics = nn.ModuleList(ImageCritic(config, domains) for _ in range(2)).to(device)
        self.content_critic = content_critic(config, domains).to(device) if domains > 1 else None
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.optimizer = _adam(network, config.learning_rate)
        self.critics_optimizer = _adam(self.critics, config.critic_learning_rate)
        critic = self.content_critic
        self.content_optimizer = None if critic is None else _adam(critic, config.content_learning_rate)
        self.count = 0

    def step(self, x: Tensor, domain: Tensor) -> dict[str, float]:
        """One update from x [2N,C,H,W] in -1..1 and its domains [2N,K] one-hot.

        The content critic learns in two of three iterations, so that it does not run away from the encoder. (The
        sources spend those two on it alone; all else learning too, the same pictures teach three times as much.)
        """
        found = {}
        if self.content_critic is not None and self.count % 3 < 2:
            found["content_critic"] = self._teach_content_critic(x, domain)
        self.count += 1
        cross, drawn, losses = self._restyle(x, domain)
        found["critic"] = self._teach_critics(x, domain, cross.detach(), drawn.detach())
        with frozen(self.critics):
            losses |= self._fool(self.critics[0](cross), domain, "cross")
            losses |= self._fool(self.critics[1](drawn), domain, "drawn")
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}, **found}

    def _restyle(self, x: Tensor, domain: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(x in its own style with the other half's content, the same with a drawn style, losses without critics)."""
        network, config = self.network, self.config
        content = network.content(x)
        style = network.attribute(x, domain)
        encoded, noise = style.draw(self._randn(style.mean)), self._randn(style.mean)
        other = content.roll(len(x) // 2, 0)
        cross, own, drawn = network.decoder(
            torch.cat([other, content, other]), torch.cat([encoded, encoded, noise]), domain.repeat(3, 1)
        ).chunk(3)

        style_again = network.attribute(cross, domain)
        content_again = network.content(cross).roll(len(x) // 2, 0)
        back = network.decoder(content_again, style_again.draw(self._randn(style.mean)), domain)
        # The encoder stands still here: it could otherwise learn to read a code that the decoder hides.
        with frozen(network.attribute):
            noise_again = network.attribute(drawn, domain).mean
        losses = {
            "own": config.reconstruction_weight * functional.l1_loss(own, x),
            "cycle": config.reconstruction_weight * functional.l1_loss(back, x),
            "kl": config.kl_weight * kl_loss(style),
            "latent": config.latent_weight * functional.l1_loss(noise_again, noise),
        }
        if self.content_critic is not None:
            with frozen(self.content_critic):
                losses["content"] = config.content_weight * confusion_loss(self.content_critic(content))
        return cross, drawn, losses

    def _fool(self, verdict: Verdict, domain: Tensor, name: str) -> dict[str, Tensor]:
        losses = {f"adversarial_{name}": adversarial_loss(verdict.real, real=True)}
        if verdict.domain is not None:
            losses[f"domain_{name}"] = self.config.domain_weight * domain_loss(verdict.domain, domain)
        return losses

    def _teach_critics(self, x: Tensor, domain: Tensor, *generated: Tensor) -> float:
        losses = []
        for critic, fake in zip(self.critics, generated, strict=True):
            real = critic(x)
            losses += [adversarial_loss(real.real, real=True), adversarial_loss(critic(fake).real, real=False)]
            if real.domain is not None:
                losses.append(domain_loss(real.domain, domain))
        loss = torch.stack(losses).sum()
        self.critics_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critics_optimizer.step()
        return loss.item()

    def _teach_content_critic(self, x: Tensor, domain: Tensor) -> float:
        critic, optimizer = self.content_critic, self.content_optimizer
        assert critic is not None
        assert optimizer is not None
        with torch.no_grad():
            content = self.network.content(x)
        loss = domain_loss(critic(content), domain)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(critic.parameters(), CONTENT_CLIP)
        optimizer.step()
        return loss.item()

    def _randn(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What `module` computes inside the block passes gradients on, but gives its own weights none."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def _adam(module: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), rate, betas=(0.5, 0.999), weight_decay=1e-4)
