"""HistAuGAN: its losses, where their gradients go, and whether it keeps content and changes style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from normscan.data.generated import read_generated
from normscan.data.read import read_image, write_image
from normscan.errors import ConfigError, InputError, UsageError
from normscan.generate.card import Source
from normscan.generate.histaugan import GENERATOR
from normscan.generate.histaugan.clusters import colour_statistics
from normscan.generate.histaugan.config import HistauganConfig
from normscan.generate.histaugan.domains import domains_of, histaugan_sources
from normscan.generate.histaugan.losses import adversarial_loss, confusion_loss, domain_loss, kl_loss, spread
from normscan.generate.histaugan.network import Histaugan, Style
from normscan.generate.histaugan.pictures import Pictures, draws, one_hot
from normscan.generate.histaugan.step import HistauganStep, frozen
from normscan.generate.histaugan.training import HistauganTraining
from normscan.generate.sample import sample
from normscan.generate.train import CPU, train

TINY = HistauganConfig.parse(GENERATOR.tiny)
PALETTES = (((235, 210, 225), (120, 40, 140)), ((200, 215, 240), (30, 90, 120)))
"""Background and structure, by domain: pink and violet, grey and teal."""


def stained(seed: int, domain: int, size: int = 24) -> np.ndarray:
    """Smooth random structure in the colours of a domain, uint8 [size,size,3]."""
    rng = np.random.default_rng(seed)
    field = cv2.resize(rng.random((4, 4), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    amount = np.clip((field - 0.35) / 0.3, 0, 1)[..., None]
    background, structure = np.array(PALETTES[domain], np.float32) + rng.normal(0, 6, (2, 3))
    return np.clip(background * (1 - amount) + structure * amount, 0, 255).astype(np.uint8)


def write_folders(root: Path, counts: dict[str, int]) -> Path:
    for domain, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            write_image(root / name / f"{i:02}.png", stained(100 * domain + i, domain % 2))
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("stains") / "data", {"pink": 12, "teal": 12})


def batch(domains: int, config: HistauganConfig = TINY, count: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.rand((count, 3, config.crop, config.crop), generator=torch.Generator().manual_seed(1)) * 2 - 1
    return x, one_hot(np.arange(count) % domains, domains)


def step_of(domains: int, config: HistauganConfig = TINY) -> HistauganStep:
    torch.manual_seed(0)
    return HistauganStep(Histaugan(config, domains), config, domains)


# ---- losses -------------------------------------------------------------------------------------------------------


def test_losses_are_their_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    mean, log_variance, logits = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    domain = np.eye(4)[[0, 3, 1, 1, 2]]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    real = 1 / (1 + np.exp(-logits))
    t = torch.from_numpy
    style = Style(t(mean), t(log_variance))

    kl = np.mean(np.sum(-0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)), axis=1))
    assert kl_loss(style).item() == pytest.approx(kl, rel=1e-12)
    assert domain_loss(t(logits), t(domain)).item() == pytest.approx(
        -np.log(probability[domain == 1]).mean(), rel=1e-12
    )
    assert confusion_loss(t(logits)).item() == pytest.approx(-np.log(probability).mean(), rel=1e-12)
    assert adversarial_loss(t(logits), real=True).item() == pytest.approx(-np.log(real).mean(), rel=1e-12)
    assert adversarial_loss(t(logits), real=False).item() == pytest.approx(-np.log(1 - real).mean(), rel=1e-12)
    centre, width = spread(style)
    np.testing.assert_allclose(centre.numpy(), mean.mean(0), rtol=1e-12)
    np.testing.assert_allclose(width.numpy(), np.sqrt(mean.var(0) + np.exp(log_variance).mean(0)), rtol=1e-12)


def test_confusion_is_smallest_where_the_content_tells_nothing() -> None:
    assert confusion_loss(torch.zeros(2, 3)) < confusion_loss(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_losses_do_not_depend_on_the_batch_size() -> None:
    style = Style(torch.randn(3, 2), torch.randn(3, 2))
    twice = Style(style.mean.repeat(2, 1), style.log_variance.repeat(2, 1))
    torch.testing.assert_close(kl_loss(twice), kl_loss(style))
    logits, domain = torch.randn(3, 2), one_hot([0, 1, 1], 2)
    torch.testing.assert_close(domain_loss(logits.repeat(2, 1), domain.repeat(2, 1)), domain_loss(logits, domain))


# ---- the step -----------------------------------------------------------------------------------------------------


def test_one_domain_has_no_domain_losses() -> None:
    step = step_of(1)
    assert step.content_critic is None
    assert step.critics[0].domain is None
    found = step.step(*batch(1))
    assert "loss" in found  # no iteration is spent on a content critic
    assert not [name for name in found if name.startswith(("domain", "content"))]
    assert step.network.attribute.body[0].in_channels == 3  # and no plane tells the one domain


def test_the_content_critic_learns_in_two_of_three_iterations() -> None:
    step = step_of(2)
    found = [step.step(*batch(2)) for _ in range(6)]
    assert ["content_critic" in losses for losses in found] == [True, True, False] * 2
    asked = {"own", "cycle", "kl", "latent", "content"}
    asked |= {f"{kind}_{which}" for kind in ("adversarial", "domain") for which in ("cross", "drawn")}
    assert set(found[2]) == {"loss", "critic", *asked}
    assert found[2]["loss"] == pytest.approx(sum(found[2][name] for name in asked), rel=1e-5)


def test_every_weight_learns() -> None:
    step = step_of(2)
    step.step(*batch(2))
    for part in (step.network, step.critics, step.content_critic):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            # A bias before an instance norm is taken out again by it; rounding is all that is left.
            assert parameter.grad.abs().max() > 0, name


def test_latent_regression_does_not_teach_the_encoder() -> None:
    step = step_of(2)
    x, domain = batch(2)
    with frozen(step.network.attribute):
        step.network.attribute(x.requires_grad_(), domain).mean.sum().backward()
    assert x.grad is not None
    assert all(p.grad is None and p.requires_grad for p in step.network.attribute.parameters())


def test_cross_exchange_comes_back_to_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a perfect encoder and decoder, own and cross-cycle reconstruction are exact."""
    step = step_of(1)
    network = step.network
    x = torch.rand(4, 3, 16, 16)
    x = x - x.mean((2, 3), keepdim=True) + torch.rand(4, 3, 1, 1)  # content: what varies; style: the means

    monkeypatch.setattr(network, "content", Exact(lambda p: p - p.mean((2, 3), keepdim=True)))
    monkeypatch.setattr(network, "attribute", Exact(lambda p, d: certain(p.mean((2, 3)))))
    monkeypatch.setattr(network, "decoder", Exact(lambda c, s, d: c + s[:, :, None, None]))
    _, _, losses = step._restyle(x, batch(1)[1])
    assert losses["own"].item() == pytest.approx(0, abs=1e-5)
    assert losses["cycle"].item() == pytest.approx(0, abs=1e-5)
    assert losses["latent"].item() == pytest.approx(0, abs=1e-5)


class Exact(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


def certain(mean: Tensor) -> Style:
    """A style that leaves no noise to draw."""
    return Style(mean, torch.full(mean.shape, -100.0))


# ---- domains ------------------------------------------------------------------------------------------------------


def config(**changes: Any) -> HistauganConfig:
    return HistauganConfig.parse({**GENERATOR.tiny, **changes})


def test_clusters_of_colour_are_the_stains(tmp_path: Path) -> None:
    for i in range(12):
        write_image(tmp_path / f"{i:02}.png", stained(i, i % 2))
    dark, light = domains_of(config(domains="clusters"), histaugan_sources(tmp_path, None))
    kinds = [{int(path.stem) % 2 for path in domain.paths} for domain in (dark, light)]
    assert kinds in ([{0}, {1}], [{1}, {0}])
    lightness = [np.mean([colour_statistics(read_image(p))[0] for p in domain.paths]) for domain in (dark, light)]
    assert lightness[0] < lightness[1]


def test_template_is_drawn_with_its_share(folders: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "good.png", stained(7, 1))
    sources = histaugan_sources(folders / "pink", tmp_path / "good.png")
    found = domains_of(config(), sources)
    assert [(d.name, len(d.paths)) for d in found] == [("ok", 12), ("template", 1)]
    assert found[1].share == pytest.approx(2 / 11)
    many = config(batch_size=512)
    ((_, drawn),) = draws(Pictures(many), found, epoch=0)
    assert drawn[:, 1].mean().item() == pytest.approx(2 / 11, abs=0.05)


def test_a_template_among_the_pictures_is_not_learnt_twice(folders: Path) -> None:
    sources = histaugan_sources(folders / "pink", folders / "pink" / "03.png")
    assert [s.path.name for s in sources if s.domain == "ok"].count("03.png") == 0
    assert sources[-1] == Source(folders / "pink" / "03.png", "template")


def test_training_normals_of_a_data_set_are_taken(skin: Path) -> None:
    found = histaugan_sources(skin, None)
    assert len(found) == 48
    assert {s.path.parent.name for s in found} == {"normal"}


@pytest.mark.parametrize(
    ("counts", "domains", "message"),
    [
        ({"a": 3, "b": 1}, "folders", r"domain 'b' has 1 image \(.*00\.png\); expected at least 2"),
        ({"a": 3, "b": 0}, "folders", r"b: the domain is empty; put 2 images or more"),
        ({"a": 3}, "folders", "but 1 folder has images; expected two or more"),
        ({"a": 1}, "one", r"domain 'ok' has 1 image \(.*00\.png\)"),
        ({"a": 3}, "clusters", "3 images for 2 clusters; expected at least 4"),
        ({"template": 3}, "one", "the name is the template's; rename the folder"),
    ],
)
def test_wrong_domains_are_told(tmp_path: Path, counts: dict[str, int], domains: str, message: str) -> None:
    root = write_folders(tmp_path / "data", counts)
    with pytest.raises(InputError, match=message):
        domains_of(config(domains=domains), histaugan_sources(root, None))


def test_images_of_one_colour_have_no_clusters(tmp_path: Path) -> None:
    for i in range(5):
        write_image(tmp_path / f"{i}.png", np.full((8, 8, 3), 90, np.uint8))
    with pytest.raises(InputError, match="fewer than 2 different colours"):
        domains_of(config(domains="clusters"), histaugan_sources(tmp_path, None))


def test_an_outlier_is_no_cluster(tmp_path: Path) -> None:
    for i in range(5):
        write_image(tmp_path / f"{i}.png", np.full((8, 8, 3), 90 + i, np.uint8))
    write_image(tmp_path / "9.png", np.full((8, 8, 3), 250, np.uint8))
    with pytest.raises(InputError, match=r"domain 'colour 2' has 1 image \(.*9\.png\)"):
        domains_of(config(domains="clusters"), histaugan_sources(tmp_path, None))


def test_wrong_template_or_none_at_all(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.png: no such file; expected the one good template"):
        histaugan_sources(folders, tmp_path / "missing.png")
    with pytest.raises(UsageError, match="name them with -i"):
        histaugan_sources(None, folders / "pink" / "00.png")


def test_wrong_sizes_are_told() -> None:
    with pytest.raises(ConfigError, match="size: 30 is not a multiple of 4"):
        config(size=30)
    with pytest.raises(ConfigError, match=r"crop: 24, expected at most size \(16\)"):
        config(crop=24)
    with pytest.raises(ConfigError, match="batch_size"):
        config(batch_size=3)


# ---- the whole ----------------------------------------------------------------------------------------------------


def test_sizes_keep_their_shape(tmp_path: Path) -> None:
    write_image(tmp_path / "wide.png", stained(0, 0, size=60)[:30])
    assert Pictures(config())[tmp_path / "wide.png"].shape == (3, 16, 32)


def test_same_seed_same_samples_and_sheets(folders: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("first", "second"):
        model = train("histaugan", folders, tmp_path / name, overrides={**GENERATOR.tiny, "domains": "folders"})
        tables.append(sample(model.folder, tmp_path / f"{name} drawn", count=3, seed=5))
    rows = [read_generated(table) for table in tables]
    for a, b in zip(*rows, strict=True):
        assert np.array_equal(read_image(a.path), read_image(b.path))
        assert (a.seed, a.origin, a.parent) == (b.seed, b.origin, b.parent)
        assert a.parent is not None
        assert read_image(a.path).shape == (16, 16, 3)
    sheets = sorted((tmp_path / "first" / "sheets").iterdir())
    assert [p.name for p in sheets] == ["epoch-0001.png", "epoch-0002.png"]
    assert read_image(sheets[0]).ndim == 3


def test_a_seed_gives_its_picture_whatever_the_count(folders: Path, tmp_path: Path) -> None:
    model = train("histaugan", folders, tmp_path / "model", overrides=GENERATOR.tiny)
    three = read_generated(sample(model.folder, tmp_path / "three", count=3, seed=5))
    one = read_generated(sample(model.folder, tmp_path / "one", count=1, seed=7))
    assert np.array_equal(read_image(three[2].path), read_image(one[0].path))


def test_a_resumed_training_is_bit_equal(folders: Path) -> None:
    overrides = config(domains="folders", epochs=2)
    sources = histaugan_sources(folders, None)
    whole = HistauganTraining(overrides, sources, CPU)
    whole.run(0, Silent())
    state = whole.state_dict()
    state = {name: _copied(value) for name, value in state.items()}
    whole.run(1, Silent())
    resumed = HistauganTraining(overrides, sources, CPU)
    resumed.load_state_dict(state)
    resumed.run(1, Silent())
    for name, value in whole.weights().items():
        assert torch.equal(value, resumed.weights()[name]), name


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


class Silent:
    def advance(self, count: int = 1, **figures: float) -> None:
        del count, figures


def test_origin_says_whether_the_template_gave_the_style(folders: Path, tmp_path: Path) -> None:
    template = folders / "teal" / "00.png"
    model = train("histaugan", folders / "pink", tmp_path / "m", template=template, overrides=GENERATOR.tiny)
    rows = read_generated(sample(model.folder, tmp_path / "any", count=12))
    assert {row.origin for row in rows} == {"generated", "generated_from_template"}
    assert template.resolve() not in {row.parent.resolve() for row in rows if row.parent}
    options = {"domain": "template", "style": "prior"}
    rows = read_generated(sample(model.folder, tmp_path / "template", count=3, options=options))
    assert {row.origin for row in rows} == {"generated_from_template"}
    with pytest.raises(UsageError, match="domain 'teal' does not exist; there are: ok, template"):
        sample(model.folder, tmp_path / "none", options={"domain": "teal"})


def test_parents_that_are_gone_are_told(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", {"pink": 3})
    model = train("histaugan", data, tmp_path / "m", overrides={**GENERATOR.tiny, "epochs": 1})
    (data / "pink" / "01.png").unlink()
    with pytest.raises(InputError, match=r"01\.png and 0 other pictures .* are gone; name others with -i"):
        sample(model.folder, tmp_path / "out")
    table = sample(model.folder, tmp_path / "out", count=2, options={"input": data / "pink" / "00.png"})
    assert {row.parent.name for row in read_generated(table) if row.parent} == {"00.png"}


def test_structure_is_kept_and_style_changed(folders: Path) -> None:
    """After a short training, a restyled picture's content is near its own, and its colours are not."""
    asked = {
        "size": 24,
        "crop": 24,
        "width": 8,
        "style": 4,
        "batch_size": 8,
        "epochs": 20,
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
    }
    learnt = HistauganTraining(config(domains="folders", **asked), histaugan_sources(folders, None), CPU)
    for epoch in range(learnt.count):
        learnt.run(epoch, Silent())
    learnt.weights()
    network, paths = learnt.network.eval(), [domain.paths[0] for domain in learnt.domains]
    with torch.no_grad():
        x = torch.stack([learnt.pictures[path] for path in paths])
        other = one_hot([1, 0], 2)
        restyled = network(x, network.style_mean[[1, 0]], other)
        content, again = network.content(x), network.content(restyled)
    kept = (again - content).abs().mean().item()
    apart = (content[0] - content[1]).abs().mean().item()
    assert kept < 0.7 * apart
    colours, changed = (np.stack([histogram(p) for p in part]) for part in (x, restyled))
    assert np.abs(changed - colours).sum(1).min() > 1.0  # of at most 2: more than half of all pixels have moved
    # And towards the other domain's colours.
    assert np.abs(changed - colours[::-1]).sum() < np.abs(changed - colours).sum()


def histogram(x: Tensor) -> np.ndarray:
    """Shares of pixels in 4 x 4 x 4 bins of colour."""
    points = x.permute(1, 2, 0).reshape(-1, 3).numpy().astype(np.float64)
    counts, _ = np.histogramdd(points, bins=4, range=[(-1.001, 1.001)] * 3)
    return counts.ravel() / counts.sum()
