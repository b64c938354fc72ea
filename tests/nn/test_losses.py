"""The Gaussian descriptor is a likelihood: neither an infinite nor a vanishing scale minimises it."""

from __future__ import annotations

import math

import torch

from normscan.nn.losses import GaussianDescriptor, reconstruction_loss


def with_scale(scale: float, channels: int = 4) -> GaussianDescriptor:
    descriptor = GaussianDescriptor(channels)
    with torch.no_grad():
        descriptor.raw_scale.fill_(scale - 1.0 + math.log(-math.expm1(1.0 - scale)))  # inverse softplus
    return descriptor


def test_value_is_the_negative_log_likelihood() -> None:
    z = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 3
    descriptor = with_scale(2.0)
    with torch.no_grad():
        descriptor.mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    expected = -torch.distributions.Normal(descriptor.mean[:, None, None], 2.0).log_prob(z).mean()
    torch.testing.assert_close(descriptor(z), expected)


def test_an_infinite_scale_does_not_minimise_it() -> None:
    """Without the log term it would: the trap in the source."""
    z = 3.0 * torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    losses = [with_scale(scale)(z).item() for scale in (1.01, 3.0, 10.0, 1e3, 1e6)]
    assert losses.index(min(losses)) == 1
    assert losses[2] < losses[3] < losses[4]


def test_a_collapsed_latent_is_bounded_below() -> None:
    """The scale is at least 1, so that an encoder gains nothing by shrinking its latents without end."""
    descriptor = with_scale(1.0 + 1e-6)
    floor = 0.5 * math.log(2 * math.pi)
    for size in (1e-3, 1e-9, 0.0):
        assert descriptor(torch.full((2, 4, 3, 3), size)).item() >= floor - 1e-6


def test_it_learns_the_scale_of_the_data() -> None:
    z = 5.0 * torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 2.0
    descriptor = GaussianDescriptor(4)
    optimizer = torch.optim.Adam(descriptor.parameters(), 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        descriptor(z).backward()
        optimizer.step()
    torch.testing.assert_close(descriptor.scale, torch.full((4,), 5.0), rtol=0.05, atol=0.0)
    torch.testing.assert_close(descriptor.mean, z.mean((0, 2, 3)), rtol=0.02, atol=0.02)


def test_reconstruction_loss_is_zero_for_the_picture_itself() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert reconstruction_loss(x, x).item() < 1e-4
    assert reconstruction_loss(1 - x, x).item() > 0.5
