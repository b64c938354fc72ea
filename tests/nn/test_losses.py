"""The Gaussian descriptor is a likelihood: neither an infinite nor a vanishing scale minimises it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arrays import uniform
from normscan.errors import ArgumentError
from normscan.nn.losses import GaussianDescriptor, _scales, ms_ssim_loss, reconstruction_loss
from reference.ms_ssim import ms_ssim


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3, 11, 30), (2, 1, 21, 22), (1, 2, 43, 39), (2, 1, 160, 81), (1, 1, 161, 170)])
def test_ms_ssim_agrees_with_the_reference(shape: tuple[int, ...], dtype: str) -> None:
    """From one scale to five, odd and even sides."""
    y = uniform(*shape, dtype=dtype)
    x = (0.7 * y + 0.3 * uniform(*shape, dtype=dtype, seed=1)).astype(dtype)
    found = ms_ssim_loss(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert found == pytest.approx(1 - ms_ssim(x, y), abs=2e-4 if dtype == "float32" else 1e-10)


def test_ms_ssim_has_five_scales_from_161_pixels_on() -> None:
    """At 160 pixels the fifth would have 10."""
    assert [_scales(side, 500) for side in (11, 20, 21, 41, 80, 81, 160, 161, 500)] == [1, 1, 2, 3, 3, 4, 4, 5, 5]


def test_ms_ssim_gradient() -> None:
    y = torch.from_numpy(uniform(1, 2, 22, 23, dtype="float64"))
    x = torch.from_numpy(uniform(1, 2, 22, 23, dtype="float64", seed=1)) * 0.4 + 0.6 * y
    assert torch.autograd.gradcheck(ms_ssim_loss, (x.requires_grad_(), y.requires_grad_()))


def test_ms_ssim_of_opposites_has_a_finite_gradient() -> None:
    """Its contrast-structure is negative, whose fractional power would be NaN."""
    y = torch.from_numpy(uniform(1, 1, 32, 32))
    x = (1 - y).requires_grad_()
    loss = ms_ssim_loss(x, y)
    loss.backward()
    assert loss.item() > 0.99
    assert x.grad is not None
    assert np.isfinite(x.grad.numpy()).all()


def test_ms_ssim_of_the_picture_itself_and_of_a_small_one() -> None:
    x = torch.from_numpy(uniform(2, 3, 40, 40))
    assert abs(ms_ssim_loss(x, x).item()) < 2e-4
    with pytest.raises(ArgumentError, match="10 x 64 pixels, expected at least 11"):
        ms_ssim_loss(torch.zeros(1, 1, 10, 64), torch.zeros(1, 1, 10, 64))
