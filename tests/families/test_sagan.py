"""What `sagan` promises beyond the contract: windows, position, identity, and the step of its game; hence so long."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from normscan.deploy.export import export
from normscan.errors import ArgumentError, ConfigError
from normscan.families.family import Batch
from normscan.families.sagan import FAMILY
from normscan.families.sagan.config import SaganConfig
from normscan.families.sagan.network import Gate, Position, SaganNetwork, restore
from normscan.families.sagan.spec import sagan_spec
from normscan.families.sagan.step import SaganStep, critic, damaged
from normscan.families.sagan.windows import merge, position_planes, split
from normscan.nn.attention import SpatialAttention
from normscan.nn.losses import gradient_penalty, mixed
from normscan.scoring.scorer import Scorer
from normscan.train.fit import Validation
from normscan.train.run import train, validator_of
from reference.sagan import PlainSaganStep


def changed(**fields: Any) -> SaganConfig:
    return SaganConfig.parse({**FAMILY.tiny, **fields})


TINY = changed()
SEMI = changed(mode="semi_supervised")


def network(config: SaganConfig = TINY) -> SaganNetwork:
    torch.manual_seed(0)
    return SaganNetwork(config)


def pictures(seed: int, count: int = 6, config: SaganConfig = TINY) -> Tensor:
    shape = (count, config.channels, config.size, config.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(seed: int = 1, count: int = 6, *, unlabelled: Tensor | None = None) -> Batch:
    x = pictures(seed, count)
    index = torch.arange(count)
    return Batch(x, torch.zeros(count), torch.ones(count), index, ("ok",) * count, unlabelled=unlabelled)


def doubled(seed: int, scale: float = 1.0) -> Batch:
    """In float64."""
    x, unlabelled = (pictures(s).double() * scale for s in (seed, seed + 10))
    return replace(batch(), x=x, unlabelled=unlabelled)


def twin(kind: type[SaganStep], config: SaganConfig, scale: float = 1.0) -> SaganStep:
    """A step in float64, the same for the same config but for what `kind` makes of it; of a scale of 0.1 or so, here
    and of the pictures, nothing that it restores is clipped.
    """
    torch.manual_seed(1)
    step = kind(network(config).double(), config)
    step.critic.double()
    step.network.generator.last.weight.data *= scale
    return step


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


# Windows and their place.

sides = st.integers(1, 4)


@given(n=st.integers(0, 3), c=st.integers(1, 3), rows=sides, cols=sides, h=sides, w=sides)
def test_merge_is_the_inverse_of_split(n: int, c: int, rows: int, cols: int, h: int, w: int) -> None:
    x = torch.arange(n * c * rows * h * cols * w).reshape(n, c, rows * h, cols * w)
    windows = split(x, (rows, cols))
    assert windows.shape == (n * rows * cols, c, h, w)
    assert torch.equal(merge(windows, (rows, cols)), x)
    for i, row, col in product(range(n), range(rows), range(cols)):
        found = windows[(i * rows + row) * cols + col]
        assert torch.equal(found, x[i, :, row * h : (row + 1) * h, col * w : (col + 1) * w])
    assert torch.equal(split(merge(windows, (rows, cols)), (rows, cols)), windows)


def test_what_cannot_be_cut_is_told() -> None:
    with pytest.raises(ArgumentError, match="x is 6 x 8 pixels, expected multiples of the grid 4 x 2"):
        split(torch.zeros(1, 1, 6, 8), (4, 2))
    with pytest.raises(ArgumentError, match="found 7 windows, expected a multiple of 6, the grid 3 x 2"):
        merge(torch.zeros(7, 1, 2, 2), (3, 2))


@pytest.mark.parametrize(("grid", "planes"), [((1, 1), 1), ((2, 2), 3), ((2, 3), 3), ((4, 4), 5), ((8, 8), 7)])
def test_planes_number_the_windows_in_binary(grid: tuple[int, int], planes: int) -> None:
    found = position_planes(grid)
    assert found.shape == (grid[0] * grid[1], planes)  # log2(windows) + 1 where that is whole
    numbers = (found * 2 ** torch.arange(planes)).sum(1)
    assert numbers.tolist() == list(range(1, grid[0] * grid[1] + 1))


def test_position_is_the_convolution_of_features_and_planes() -> None:
    """Of the concatenation that the method describes, with constant planes as large as a window."""
    torch.manual_seed(0)
    module = Position(5, (2, 3)).double()
    x = torch.randn(12, 5, 4, 7, dtype=torch.float64)
    planes = module.planes.repeat(2, 1)[:, :, None, None].expand(-1, -1, 4, 7)
    weight = torch.cat([module.features.weight, module.place.weight[:, :, None, None]], 1)
    expected = F.conv2d(torch.cat([x, planes], 1), weight, module.features.bias)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("position", "differ"), [("planes", True), ("none", False)])
def test_a_window_s_place_is_seen_through_the_norms(position: str, differ: bool) -> None:
    config = changed(position=position)
    half = pictures(0, 1)[..., : config.window[1]]
    found = network(config)(torch.cat([half, half], 3)).restored.detach()
    left, right = found.chunk(2, 3)
    assert (float((left - right).abs().max()) > 1e-3) == differ


# The network.


def test_paper_has_the_paper_numbers() -> None:
    config = SaganConfig.preset("paper")
    assert (config.size, config.channels, config.grid, config.width, config.blocks) == (64, 1, (2, 2), 64, 6)
    assert (config.iterations, config.batch_size, config.critic_steps, config.learning_rate) == (100_000, 32, 2, 5e-5)
    assert (config.decay, config.gradient_penalty, config.keep) == ("linear_half", 10, 0.05)
    assert config.mode == "semi_supervised"
    with torch.device("meta"):
        assert 44e6 < sum(p.numel() for p in SaganNetwork(config).parameters()) < 46e6
        widths = [m.out_channels for m in critic(config) if isinstance(m, torch.nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 1024, 2048]


@pytest.mark.parametrize(
    ("size", "grid", "attention"),
    [(16, (1, 1), "fused"), (32, (2, 2), "additive"), (48, (1, 3), "additive"), (64, (2, 1), "fused")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_batch(size: int, grid: tuple[int, int], attention: str, channels: int) -> None:
    config = changed(size=size, grid=grid, attention=attention, channels=channels)
    made, game = network(config), critic(config)
    for count in (1, 3):
        x = pictures(2, count, config)
        image, restored = made(x)
        assert image is x
        assert restored.shape == x.shape
        assert game(x).shape == (count, 1)
    alone = made(pictures(2, 3, config)).restored[:1]
    torch.testing.assert_close(made(pictures(2, 3, config)[:1]).restored, alone, rtol=0, atol=1e-5)


def test_an_untouched_picture_is_bit_equal() -> None:
    x = pictures(0)
    x[0, 0, 0, :3] = torch.tensor([-1.0, 1.0, 0.0])
    made = network()
    torch.nn.init.zeros_(made.generator.last.weight)
    torch.nn.init.zeros_(made.generator.last.bias)
    for mode in (made.train(), made.eval()):
        assert torch.equal(mode(x).restored, x)
    with torch.no_grad():
        assert torch.equal(made(x).restored, x)


def test_the_gradient_lives_beyond_the_border_and_leads_back() -> None:
    x = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0]).view(1, 1, 1, 5)
    change = torch.tensor([5.0, 5.0, -5.0, -5.0, 0.5]).view(1, 1, 1, 5).requires_grad_(True)
    restored = restore(x, change)
    assert restored.flatten().tolist() == [1, 1, -1, -1, 0.5]
    restored.backward(torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0]).view(1, 1, 1, 5))
    assert change.grad is not None
    assert change.grad.flatten().tolist() == [2, 0, 0, -2, 3]  # 0 where descent would go further out


def test_kept_pixels_are_the_input_s() -> None:
    made, x = network(), pictures(0)
    kept = torch.rand(len(x), 1, *x.shape[2:]) < 0.5
    with_mask, without = made(x, kept).restored, made(x).restored
    assert torch.equal(with_mask, torch.where(kept, x, without))
    assert not torch.equal(without, x)


def test_a_gate_is_the_formula() -> None:
    torch.manual_seed(0)
    gate = Gate(6).double()
    guide, skip = torch.randn(2, 3, 6, 4, 5, dtype=torch.float64)

    def normed(t: Tensor) -> Tensor:
        return F.instance_norm(t)

    of_guide, of_skip, psi = gate.of_guide[0].weight, gate.of_skip[0].weight, gate.psi[1].weight
    assert (of_guide.shape, of_skip.shape, psi.shape) == ((3, 6, 1, 1), (3, 6, 1, 1), (1, 3, 1, 1))
    inner = F.relu(normed(F.conv2d(guide, of_guide)) + normed(F.conv2d(skip, of_skip)))
    factor = torch.sigmoid(normed(F.conv2d(inner, psi)))
    assert factor.shape == (3, 1, 4, 5)
    torch.testing.assert_close(gate(guide, skip), skip * factor)


@pytest.mark.parametrize(("attention", "gates", "attends"), [("additive", 3, 0), ("fused", 0, 1)])
def test_attention_is_one_of_two(attention: str, gates: int, attends: int) -> None:
    parts = list(network(changed(attention=attention)).modules())
    assert sum(isinstance(m, Gate) for m in parts) == gates
    found = [m for m in parts if isinstance(m, SpatialAttention)]
    assert len(found) == attends
    assert all(m.grid == (16, 8) for m in found)  # half of a window of 32 x 16


@pytest.mark.parametrize("channels", [1, 3])
def test_scoring_is_deterministic_and_in_shares_of_the_range(channels: int) -> None:
    config = changed(channels=channels)
    made, x = network(config), pictures(3, 4, config)
    with torch.no_grad():
        first, second, trained = made.eval()(x), made.eval()(x), made.train()(x)
    assert torch.equal(first.restored, second.restored)
    assert torch.equal(first.restored, trained.restored)  # nothing depends on the mode
    found = Scorer(sagan_spec(config), {}).score({name: t.numpy() for name, t in first._asdict().items()})
    expected = (first.restored - x).abs().mean((1, 2, 3)) / 2
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 32, "grid": (3, 2)}, r"config.size: 32, expected a multiple of both .* config.grid, 3 x 2 windows"),
        ({"size": 32, "grid": (4, 2)}, r"config.grid: 4 x 2 cuts 32 pixels into windows of 8 x 16; .* at least 16"),
        ({"size": 40, "grid": (1, 2)}, r"windows of 40 x 20; .*multiples of 8"),
        ({"attention": "fused", "heads": 3}, "config.heads: 3, expected a divisor of 8"),
        ({"grid": (0, 2)}, "config.grid.0"),
    ],
)
def test_wrong_configurations_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(**fields)


# The step.


def test_damage_is_a_square_of_another_picture() -> None:
    count, side = 40, 50
    levels = torch.arange(count, dtype=torch.float32)
    x = levels.view(-1, 1, 1, 1).expand(count, 2, side, side).contiguous()
    found = damaged(x, torch.Generator().manual_seed(0))
    donors, widths = set(), []
    for level, before, one in zip(levels.tolist(), x, found, strict=True):
        touched = (one != before).any(0)
        rows, cols = (touched.any(axis).nonzero().flatten() for axis in (1, 0))
        box = touched[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        assert bool(box.all())
        assert abs(box.shape[0] - box.shape[1]) <= 1
        widths.append(box.shape[0])
        assert 0.2 * side - 1 <= (float(rows[0] + rows[-1]) + 1) / 2 <= 0.8 * side + 1
        values = one[:, touched].unique()
        assert len(values) == 1
        donors.add(float(values[0]) > level)
    assert donors == {True, False}
    assert 4 <= min(widths) < 9
    assert 15 < max(widths) <= 21
    again = damaged(x, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)
    assert torch.equal(damaged(x[:1], torch.Generator()), x[:1])  # alone, it is its own donor


@pytest.mark.parametrize(("config", "scale"), [(SEMI, 1.0), (TINY, 0.1)], ids=["semi_supervised", "one_class"])
def test_a_step_is_the_straightforward_form(config: SaganConfig, scale: float) -> None:
    """One batch through the generator, one through the critic, against a pass for each loss.

    In one-class mode, the losses of a damaged picture meet before the clip, which asks where their sum leads.
    """
    ours, theirs = (twin(kind, config, scale) for kind in (SaganStep, PlainSaganStep))
    for seed in range(4):
        seen = doubled(seed, scale)
        assert ours.step(seen) == pytest.approx(theirs.step(seen), rel=1e-5)
        for part in ("network", "critic"):
            parts = getattr(ours, part).named_parameters(), getattr(theirs, part).parameters()
            for (name, a), b in zip(*parts, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=name)
                if part == "network":
                    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5, msg=name)


def test_the_critic_s_loss_is_the_formula() -> None:
    step = SaganStep(network(SEMI), SEMI)
    game, x, fake = copy.deepcopy(step.critic), pictures(1), pictures(2)
    at = mixed(x, fake, torch.Generator().manual_seed(SEMI.seed))
    expected = game(fake).mean() - game(x).mean() + 10 * gradient_penalty(game, at)
    assert step._teach_critic(x, fake) == pytest.approx(expected.item(), rel=1e-5)


def test_the_critic_learns_without_a_graph_of_the_generator() -> None:
    """Each step is one pass through the generator, with a graph where the generator learns, too, and not otherwise."""
    step = SaganStep(network(SEMI), changed(mode="semi_supervised", critic_steps=2))
    passes = []
    step.network.register_forward_hook(
        lambda *args: passes.append((len(args[-1].restored), args[-1].restored.requires_grad))
    )
    fakes: list[Tensor] = []
    teach = step._teach_critic
    step._teach_critic = lambda x, fake: fakes.append(fake) or teach(x, fake)  # type: ignore[method-assign,func-returns-value]
    for _ in range(2):
        step.step(batch(unlabelled=pictures(2)))
    assert passes == [(18, True), (6, False)]
    assert [fake.requires_grad for fake in fakes] == [False, False]


def test_what_learns_when() -> None:
    step = SaganStep(network(), changed(critic_steps=3))
    moved = []
    for _ in range(4):
        before = copy.deepcopy(step.critic), copy.deepcopy(step.network)
        step.step(batch())
        moved.append([not same_weights(a, b) for a, b in zip(before, (step.critic, step.network), strict=True)])
    assert moved == [[True, True], [True, False], [True, False], [True, True]]


def test_one_class_is_semi_supervised_with_damaged_normals() -> None:
    seen = doubled(1, scale=0.1)
    one, semi = twin(SaganStep, TINY, 0.1), twin(SaganStep, SEMI, 0.1)
    stand_in = damaged(seen.x, torch.Generator().manual_seed(TINY.seed))
    assert one.step(seen) == pytest.approx(semi.step(replace(seen, unlabelled=stand_in)), rel=1e-5)
    for (name, a), b in zip(one.network.named_parameters(), semi.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("unlabelled", [None, pictures(0, 5)])
def test_unlabelled_pictures_that_do_not_fit_are_told(unlabelled: Tensor | None) -> None:
    with pytest.raises(ArgumentError, match=r"batch.unlabelled has shape .*, expected that of x, \[6, 3, 32, 32\]"):
        SaganStep(network(SEMI), SEMI).step(batch(unlabelled=unlabelled))


def test_the_rate_falls_over_the_second_half() -> None:
    config = changed(decay="linear_half", iterations=8, epochs=2, learning_rate=0.5)
    step = SaganStep(network(config), config)
    rates = []
    for seed in range(8):
        step.step(batch(seed))
        rates.append((step.optimizer.param_groups[0]["lr"], step.critic_optimizer.param_groups[0]["lr"]))
    assert rates == [(r, r) for r in (0.5, 0.5, 0.5, 0.5, 0.5, 0.375, 0.25, 0.125)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_restored_step_goes_on_bit_for_bit(precision: torch.dtype) -> None:
    config = changed(mode="semi_supervised", critic_steps=2)
    made = network(config)
    step = SaganStep(made, config)

    def go(one: SaganStep, seed: int) -> None:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            found = one.step(batch(seed, unlabelled=pictures(seed + 10)))
        assert all(np.isfinite(value) for value in found.values())

    for seed in range(3):
        go(step, seed)
    weights, state = copy.deepcopy(made.state_dict()), copy.deepcopy(step.state_dict())
    go(step, 9)
    go(step, 10)
    again = network(config)
    again.load_state_dict(weights)
    other = SaganStep(again, config)
    other.load_state_dict(state)
    go(other, 9)
    go(other, 10)
    assert same_weights(made, again)
    assert same_weights(step.critic, other.critic)


def test_the_weights_that_restore_best_are_kept(skin: Path, tmp_path: Path) -> None:
    """Of validation normals and planted anomalies; the network as it was then, not as it is at the end."""
    rate = {"learning_rate": 0.02, "iterations": 12, "epochs": 4}  # too fast: later is not better
    run = train("sagan", skin, tmp_path / "run", preset="paper", overrides={**FAMILY.tiny, **rate})
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    errors = [row["validation_restoration"] for row in rows]
    assert len(errors) == 4
    assert errors[-1] > min(errors), "the best is the last by chance"
    kept = validator_of(run).judged_by(None, "restored")(run.network()).restoration
    assert kept == pytest.approx(min(errors), rel=1e-4)


def test_training_is_watched_without_being_changed(skin: Path, tmp_path: Path) -> None:
    seen: list[float] = []

    def watch(network: torch.nn.Module, found: Validation) -> None:
        with torch.no_grad():
            network.eval()(pictures(0))
        seen.append(found.gain)

    kept = []
    for name, watching in (("watched", watch), ("alone", None)):
        run = train("sagan", skin, tmp_path / name, preset="paper", overrides=FAMILY.tiny, watch=watching)
        kept.append(run.network())
    assert len(seen) == FAMILY.tiny["epochs"]
    assert same_weights(*kept)


# Deployment.

ENGINES_KNOW = (
    "Add Cast Clip Concat Conv ConvTranspose Constant Div Expand Gather Identity InstanceNormalization MatMul Mul "
    "ReduceMean Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Transpose Unsqueeze"
)
"""Operators that TensorRT takes, of opset 18."""


@pytest.mark.parametrize("attention", ["additive", "fused"])
def test_an_export_has_operators_that_engines_know(attention: str, skin: Path, tmp_path: Path) -> None:
    """Both kinds of attention, trained and exported, which compares torch with the graph at several batch sizes."""
    overrides = {**FAMILY.tiny, "attention": attention, "iterations": 2, "epochs": 1}
    run = train("sagan", skin, tmp_path / "run", preset="paper", overrides=overrides)
    bundle = export(run.folder, tmp_path / "sagan.normscan").folder
    graph = onnx.load(bundle / "model.onnx").graph
    assert {node.op_type for node in graph.node} <= set(ENGINES_KNOW.split())
    (given,) = graph.input
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == [0, 3, 32, 32]  # the batch has any size
