"""What `sepiad` promises beyond the contract: the paper's numbers, the balance of its losses, its features."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from normscan.checkpoint import latest_checkpoint, read_state
from normscan.data.read import write_image
from normscan.errors import ConfigError, ImageError
from normscan.families.family import Batch
from normscan.families.sepiad import FAMILY
from normscan.families.sepiad.balance import Balance
from normscan.families.sepiad.config import SepiadConfig
from normscan.families.sepiad.network import PerceptualFeatures, SepiadNetwork
from normscan.families.sepiad.spec import sepiad_spec
from normscan.families.sepiad.step import SepiadStep, latent_critic
from normscan.nn.losses import gradient_penalty, mixed, relative_perceptual_loss
from normscan.nn.squeeze import SqueezeExcitation
from normscan.train.run import train
from reference.distance import distance

TINY = SepiadConfig.parse(FAMILY.tiny)


def changed(**fields: Any) -> SepiadConfig:
    return SepiadConfig.parse({**FAMILY.tiny, **fields})


def network(config: SepiadConfig = TINY) -> SepiadNetwork:
    torch.manual_seed(0)
    made = SepiadNetwork(config)
    FAMILY.start(made, config)
    return made


def batch(seed: int = 1, count: int = 6) -> Batch:
    x = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Batch(x, torch.zeros(count), torch.ones(count), torch.arange(count), ("ok",) * count)


def test_paper_has_the_paper_numbers() -> None:
    config = SepiadConfig.preset("paper")
    assert (config.size, config.latent, config.gate, config.iterations, config.critic_steps) == (32, 256, 8, 20_000, 2)
    assert (config.learning_rate, config.critic_learning_rate, config.batch_size) == (2e-4, 5e-4, 32)
    assert (config.gradient_penalty, config.drift, config.backbone, config.layers) == (10, 0.001, "vgg19", ("relu4_2",))
    made = SepiadNetwork(config).eval()
    with torch.no_grad():
        assert made.encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 256)
        picture = made.generator(torch.randn(2, 256) * 100)
        assert picture.shape == (2, 3, 32, 32)
        assert picture.abs().max() <= 1
        assert [tuple(f.shape) for f in made(torch.zeros(2, 3, 32, 32))] == 2 * [(2, 512, 4, 4)]
    assert [m.weight.shape for m in latent_critic(config) if isinstance(m, torch.nn.Linear)] == [
        (1024, 256),
        (1024, 1024),
        (1, 1024),
    ]


@pytest.mark.parametrize(("preset", "gates"), [("paper", 8), ("piad", 0), ("small", 8), ("small_piad", 0)])
def test_piad_has_no_gates(preset: str, gates: int) -> None:
    made = SepiadNetwork(SepiadConfig.preset(preset, {"weights": "random"}))
    assert sum(isinstance(m, SqueezeExcitation) for m in made.modules()) == gates


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 18}, "config.size: 18, expected a multiple of 4: encoder_widths has 2 blocks"),
        ({"critic_widths": (4, 4, 4, 4, 4)}, "config.size: 16, expected a multiple of 32: critic_widths"),
        ({"channels": 1}, "config.channels: 1, expected 3"),
        ({"layers": ("layer9",)}, "config: layers of resnet18: found 'layer9', expected some of layer1"),
        ({"layers": ("relu4_2",)}, "config: layers of resnet18: found 'relu4_2'"),
        ({"layers": ()}, "layers of resnet18: found empty"),
        ({"backbone": "resnet19"}, "backbone is 'resnet19', expected one of"),
        ({"weights": "x.npz"}, "config.width: 4, expected 64"),
    ],
)
def test_wrong_configurations_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(**fields)


@pytest.mark.parametrize(("preset", "metric"), [("paper", "relative_l1"), ("piad", "relative_l1"), ("small", "l1")])
def test_the_score_s_metric(preset: str, metric: str) -> None:
    spec = sepiad_spec(SepiadConfig.preset(preset))
    assert {term.metric for term in spec.terms} == {metric}
    assert spec.terms[0].of == ("rebuilt_1", "features_1")


def test_the_penalty_of_a_linear_critic() -> None:
    linear = torch.nn.Linear(5, 1)
    torch.nn.init.constant_(linear.weight, 2.0)
    x = torch.randn(3, 5)
    assert gradient_penalty(linear, x).item() == pytest.approx((np.sqrt(20) - 1) ** 2, rel=1e-5)
    torch.nn.init.zeros_(linear.weight)
    gradient_penalty(linear, x).backward()
    assert linear.weight.grad is not None
    assert bool(linear.weight.grad.isfinite().all())


def test_a_mixture_lies_between() -> None:
    real, fake = torch.zeros(50, 2, 3), torch.ones(50, 2, 3)
    found = mixed(real, fake, torch.Generator().manual_seed(0))
    assert bool(((found > 0) & (found < 1)).all())
    assert all(len(one.unique()) == 1 for one in found)  # one share an image
    assert len(found[:, 0, 0].unique()) == 50


def test_the_perceptual_loss_is_the_reference() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=s), rng.normal(size=s)) for s in ((2, 3, 4, 5), (2, 7, 2, 2))]
    expected = np.mean([distance(a, b, metric="relative_l1").mean() for a, b in pairs])
    found = relative_perceptual_loss(*([torch.from_numpy(p[i]) for p in pairs] for i in (0, 1)))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_features_are_standardised_by_what_they_were_fitted_on() -> None:
    features = network().features
    x = torch.rand(40, 3, 16, 16) * 2 - 1
    features.fit(iter(x.split(7)))
    for level, f in enumerate(features(x)):
        varies = getattr(features, f"spread_{level}")[:, 0, 0] != 1
        assert int(varies.sum()) > len(varies) // 2
        np.testing.assert_allclose(f.mean((0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(f.std((0, 2, 3))[varies], 1, rtol=1e-2)
    before = features.center_0.clone()
    features.fit([x + 1])  # once is enough: a resumed run has them
    assert torch.equal(features.center_0, before)


def test_features_may_see_a_larger_picture() -> None:
    assert PerceptualFeatures(changed(feature_size=32))(torch.zeros(1, 3, 16, 16))[0].shape[2:] == (8, 8)


def test_the_weight_is_the_median_of_smoothed_ratios() -> None:
    balance = Balance(smoothing=0.25, records=2, every=3)
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 2, 4, 5, 3))
    norms, ratios, expected = None, [], 1.0
    for i, (game, reconstruction) in enumerate(gradients):
        now = np.sqrt((np.stack([game, reconstruction]) ** 2).sum((2, 3)))
        norms = now if norms is None else 0.75 * norms + 0.25 * now
        ratios = [*ratios, norms[0] / norms[1]][-2:]
        balance.record(*(list(torch.from_numpy(g)) for g in (game, reconstruction)))
        if i < 3:
            expected = float(torch.tensor(np.asarray(ratios)).median())
        balance.advance()
        if (i + 1) % 3 == 0:
            expected = float(torch.tensor(np.asarray(ratios)).median())
        assert balance.weight == pytest.approx(expected, rel=1e-5)


def test_a_step_is_the_straightforward_form() -> None:
    """Cut at the code and put together again, gradients are those of the two losses written out."""
    made = network()
    step = SepiadStep(made, changed(record_every=1000))
    same = batch()
    step.begin_epoch([same])
    for name, weight in (("encoder", 0.7), ("generator", 3.0)):
        step.balance[name].weight = weight
        step.balance[name].iterations = 1  # no record is due
    twin = copy.deepcopy(made)
    prior = torch.randn((6, TINY.latent), generator=torch.Generator().manual_seed(TINY.seed))
    rebuilt = twin.generator(code := twin.encoder(same.x))
    reconstruction = relative_perceptual_loss(twin.features(rebuilt), twin.features(same.x))
    for part, weight, score in (
        (twin.encoder, 0.7, step.latent_critic(code)),
        (twin.generator, 3.0, step.image_critic(twin.generator(prior))),
    ):
        wanted = torch.autograd.grad(weight * reconstruction - score.mean(), list(part.parameters()), retain_graph=True)
        for parameter, gradient in zip(part.parameters(), wanted, strict=True):
            parameter.grad = gradient
    step.random.manual_seed(TINY.seed)
    step._teach_players(same.x)
    for ours, theirs in zip(
        [*made.encoder.parameters(), *made.generator.parameters()],
        [*twin.encoder.parameters(), *twin.generator.parameters()],
        strict=True,
    ):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_what_learns_when() -> None:
    made = network()
    step = SepiadStep(made, changed(critic_steps=3))
    step.begin_epoch([batch()])

    def state() -> tuple[dict[str, Tensor], ...]:
        parts = (step.critics, made.encoder, made.generator, made.features)
        return tuple({n: v.clone() for n, v in part.state_dict().items()} for part in parts)

    moved = []
    for _ in range(4):
        before = state()
        step.step(batch())
        moved.append([any(not torch.equal(a[n], b[n]) for n in a) for a, b in zip(before, state(), strict=True)])
    assert moved == [
        [True, True, True, False],
        [True, False, False, False],
        [True, False, False, False],
        [True, True, True, False],
    ]


def test_a_restored_step_goes_on_bit_for_bit() -> None:
    made = network()
    step = SepiadStep(made, TINY)
    step.begin_epoch([batch()])
    for seed in range(3):
        step.step(batch(seed))
    weights, state = copy.deepcopy(made.state_dict()), copy.deepcopy(step.state_dict())
    step.step(batch(9))
    again = network()
    again.load_state_dict(weights)
    other = SepiadStep(again, TINY)
    other.load_state_dict(state)
    other.begin_epoch([batch()])
    other.step(batch(9))
    assert all(torch.equal(made.state_dict()[n], v) for n, v in again.state_dict().items())


def test_iterations_are_counted_and_not_passes(skin: Path, tmp_path: Path) -> None:
    """8 iterations of 2 critic steps in 4 parts, whatever the number of pictures; the last weights are kept."""
    overrides = {**FAMILY.tiny, "critic_steps": 2, "epochs": 4, "patience": 1}
    run = train("sepiad", skin, tmp_path / "run", preset="paper", overrides=overrides)
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows] == [4, 8, 12, 16]
    assert np.argmax([row["validation_separation"] for row in rows]) < 3, "the best is the last by chance"
    checkpoint = latest_checkpoint(run.folder / "checkpoints")
    assert checkpoint is not None
    last = read_state(checkpoint)["network"]
    assert all(torch.equal(value, last[name]) for name, value in run.network().state_dict().items() if name in last)
    stored = load_file(run.folder / "network.safetensors")
    assert bool(stored["features.fitted"])
    assert float(stored["features.center_0"].abs().sum()) > 0


def test_pictures_smaller_than_the_network_are_refused(skin: Path, tmp_path: Path) -> None:
    import shutil

    data = shutil.copytree(skin, tmp_path / "data")
    write_image(data / "train" / "normal" / "small.png", np.zeros((40, 12, 3), np.uint8))
    with pytest.raises(ImageError, match=r"small.png: 12x40 pixels, expected at least 16 a side"):
        train("sepiad", data, tmp_path / "run", preset="paper", overrides=FAMILY.tiny)
