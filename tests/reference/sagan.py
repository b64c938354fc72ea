"""The training step of `sagan` written out: a pass through the generator for each loss, graphs wherever they arise."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from normscan.families.sagan.step import SaganStep
from normscan.nn.losses import gradient_penalty, mixed


class PlainSaganStep(SaganStep):
    """What the step computes, without its economies; for its test and its benchmark."""

    def _teach(self, x: Tensor, bad: Tensor, unlabelled: Tensor, kept: Tensor) -> float:
        fake = self.generate(unlabelled, kept).restored.detach()
        on_real, on_fake = self.critic(x).float(), self.critic(fake).float()
        penalty = gradient_penalty(self.critic, mixed(x, fake, self.random))
        game = on_fake.mean() - on_real.mean() + self.config.gradient_penalty * penalty
        self.critic_optimizer.zero_grad(set_to_none=True)
        game.backward()
        self.critic_optimizer.step()
        if self.count % self.config.critic_steps == 0:
            same, mended, fake = (self.generate(one, kept).restored for one in (x, bad, unlabelled))
            figures = {"identity": (x - same).abs().mean(), "restoration": F.mse_loss(mended, x)}
            figures["loss"] = sum(getattr(self.config, name) * value for name, value in figures.items())
            figures["on_fake"] = self.critic(fake).float().mean()
            self.optimizer.zero_grad(set_to_none=True)
            (figures["loss"] - figures["on_fake"]).backward()
            self.optimizer.step()
            self.last = {name: value.item() for name, value in figures.items()}
        return game.item()


STEP = PlainSaganStep
"""What benchmarks/bench_training.py takes."""
