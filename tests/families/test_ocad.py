"""The traps of `ocad`'s sources (METHODS), each closed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from normscan.errors import ConfigError
from normscan.families.family import Batch
from normscan.families.ocad import FAMILY
from normscan.families.ocad.config import OcadConfig
from normscan.families.ocad.network import OcadNetwork
from normscan.families.ocad.step import OcadStep, interpolation_critic

TINY = OcadConfig.parse(FAMILY.tiny)


def batch(count: int = 6) -> Batch:
    x = torch.rand(count, 3, TINY.size, TINY.size, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.zeros(count), torch.ones(count), torch.arange(count), ("ok",) * count)


def test_paper_has_the_paper_numbers() -> None:
    config = OcadConfig.preset("paper")
    network = OcadNetwork(config)
    outputs = network.eval()(torch.zeros(1, 3, 176, 176))
    assert outputs.latent.shape == (1, 64, 22, 22)
    assert outputs.reconstruction.shape == (1, 3, 176, 176)
    widths = [m.out_channels for m in network.encoder if isinstance(m, torch.nn.Conv2d)]
    assert widths == [256, 128, 64]
    assert [m.out_channels for m in network.decoder if isinstance(m, torch.nn.Conv2d)] == [64, 128, 256, 3]
    assert (config.heads, config.key_size, config.learning_rate, config.batch_size) == (4, 64, 1e-4, 32)
    assert (config.epochs, config.patience, config.halve_after, config.padding) == (100, 10, 5, "zeros")


def test_the_critic_predicts_one_coefficient_a_picture() -> None:
    """(b,) against (b,), never (b,) against (b,1), which would broadcast to (b,b)."""
    assert interpolation_critic(3, 4)(torch.rand(5, 3, 16, 16)).shape == (5,)


def test_the_critic_target_varies_and_sees_decoded_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    step = OcadStep(OcadNetwork(TINY), TINY)
    seen: list[tuple[torch.Tensor, ...]] = []
    update = step._update_critic

    def spy(*arguments: torch.Tensor) -> float:
        seen.append(arguments)
        return update(*arguments)

    monkeypatch.setattr(step, "_update_critic", spy)
    step.step(batch())
    step.step(batch())
    for x, _, interpolated, alpha in seen:
        assert interpolated.shape == x.shape  # a picture, not a latent
        assert not interpolated.requires_grad
        assert alpha.shape == (6,)
        assert (alpha >= 0).all()
        assert (alpha <= 0.5).all()
        assert alpha.unique().numel() == 6
    assert not torch.equal(seen[0][3], seen[1][3])


def test_the_critic_learns_the_coefficient() -> None:
    """With a constant target it learnt nothing; with ours, its prediction follows alpha."""
    torch.manual_seed(0)
    config = TINY.model_copy(update={"critic_width": 8, "learning_rate": 3e-3})
    step = OcadStep(OcadNetwork(config), config)
    generator = torch.Generator().manual_seed(0)
    dark, bright = torch.full((64, 3, 16, 16), 0.2), torch.full((64, 3, 16, 16), 0.8)
    for _ in range(150):
        alpha = 0.5 * torch.rand(64, generator=generator)
        share = alpha[:, None, None, None]
        step._update_critic(bright, bright, share * bright + (1 - share) * dark, alpha)
    alpha = torch.linspace(0.05, 0.45, 64)
    mixed = alpha[:, None, None, None] * bright + (1 - alpha[:, None, None, None]) * dark
    predicted = step.critic(mixed).detach()
    assert torch.corrcoef(torch.stack([predicted, alpha]))[0, 1] > 0.9


def test_every_part_of_the_network_learns() -> None:
    torch.manual_seed(0)
    network = OcadNetwork(TINY)
    step = OcadStep(network, TINY)
    before = {name: value.clone() for name, value in network.named_parameters()}
    before |= {f"critic.{name}": value.clone() for name, value in step.critic.named_parameters()}
    before |= {f"descriptor.{name}": value.clone() for name, value in step.descriptor.named_parameters()}
    step.step(batch())
    after = dict(network.named_parameters())
    after |= {f"critic.{name}": value for name, value in step.critic.named_parameters()}
    after |= {f"descriptor.{name}": value for name, value in step.descriptor.named_parameters()}
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_the_rate_is_halved_after_validations_without_gain() -> None:
    step = OcadStep(OcadNetwork(TINY), TINY)
    rates = []
    for stale in range(11):
        step.validated(stale)
        rates.append(step.optimizer.param_groups[0]["lr"] / TINY.learning_rate)
    assert rates == [1.0] * 5 + [0.5] * 5 + [0.25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 60}, "multiple of 8"),
        ({"attention_after": 4}, "at most 3"),
        ({"ssim_weight": 0, "l1_weight": 0, "latent_weight": 0}, "one must be positive"),
        ({"padding": "mirror"}, r"config\.padding"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"wdths": (8, 8)}, "did you mean 'widths'"),
        ({"ssim_pool": {"topk": 2.0}}, r"terms\[0\]\.pool"),
    ],
)
def test_a_wrong_configuration_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FAMILY.spec(OcadConfig.preset("small", change))
