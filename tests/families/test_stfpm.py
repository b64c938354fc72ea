"""The traps of `stfpm`'s sources (METHODS), each closed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

from normscan.deploy.card import card
from normscan.errors import ConfigError, InputError, UsageError
from normscan.families.family import Batch
from normscan.families.stfpm import FAMILY
from normscan.families.stfpm.config import StfpmConfig
from normscan.families.stfpm.network import StfpmNetwork
from normscan.families.stfpm.spec import stfpm_spec
from normscan.families.stfpm.step import TEMPLATE, StudentStep, origin_weights, student_loss
from normscan.families.stfpm.tasks import cutpaste, rotated
from normscan.families.stfpm.teacher import TeacherStep
from normscan.files import sha256
from normscan.train.folder import Run
from normscan.train.loop import Loop
from normscan.train.run import train
from reference.distance import distance

TINY = StfpmConfig.parse({**FAMILY.tiny, "teacher_task": "none"})
ORIGINS = ("ok", "generated", "ok", TEMPLATE, "generated", "ok", "ok")


def changed(**fields: Any) -> StfpmConfig:
    return StfpmConfig.parse({**TINY.model_dump(), **fields})


def network(config: StfpmConfig = TINY) -> StfpmNetwork:
    torch.manual_seed(0)
    made = StfpmNetwork(config)
    FAMILY.start(made, config)
    return made


def batch(count: int = 6, *, origin: tuple[str, ...] | None = None, first: int = 0) -> Batch:
    x = torch.randn(first + count, 3, 32, 32, generator=torch.Generator().manual_seed(1))[first:]
    origin = origin or ("ok",) * count
    index = torch.arange(first, first + count)
    return Batch(x, torch.zeros(count), torch.ones(count), index, origin, origins=frozenset(origin))


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(module: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_paper_has_the_paper_numbers() -> None:
    config = StfpmConfig.preset("paper")
    assert (config.learning_rate, config.momentum, config.weight_decay, config.decay) == (0.4, 0.9, 1e-4, "none")
    assert (config.epochs, config.batch_size, config.size, config.backbone) == (100, 32, 256, "resnet18")
    made = StfpmNetwork(config.model_copy(update={"weights": "random"})).eval()
    with torch.no_grad():
        outputs = made(torch.zeros(1, 3, 256, 256))
    shapes = [(1, 64, 64, 64), (1, 128, 32, 32), (1, 256, 16, 16)]
    assert [tuple(f.shape) for f in outputs] == 2 * shapes
    assert outputs._fields == tuple(f"{who}_{i}" for who in ("student", "teacher") for i in (1, 2, 3))


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("template", [False, True])
def test_the_loss_is_the_formula(count: int, template: bool) -> None:
    """L = mean_i w_i sum_l 0.5/(h w) |s/|s| - t/|t||^2 in float64, w by origin: the source's was right for batch 1."""
    generator = np.random.default_rng(3)
    shapes = [(count, 5, 8, 6), (count, 7, 4, 3), (count, 9, 2, 2)]
    student, teacher = ([generator.normal(size=s) for s in shapes] for _ in range(2))
    origin = ORIGINS[:count] if template else tuple(o.removesuffix("_from_template") for o in ORIGINS[:count])
    origins = {*origin, TEMPLATE} if template else set(origin)
    table = {"ok": 5, "generated": 1, TEMPLATE: 2} if template else {"ok": 9, "generated": 1}
    expected = 0.0
    for i, name in enumerate(origin):
        for s, t in zip(student, teacher, strict=True):
            unit = [f[i] / np.linalg.norm(f[i], axis=0) for f in (s, t)]
            expected += table[name] * 0.5 * float(np.sum((unit[0] - unit[1]) ** 2)) / (s.shape[2] * s.shape[3])
    levels = [[torch.from_numpy(f).float() for f in side] for side in (student, teacher)]
    weight = origin_weights(origin, origins, torch.empty(()))
    assert student_loss(*levels, weight).item() == pytest.approx(expected / count, rel=1e-5)


def test_a_batch_is_the_mean_of_its_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = ([torch.randn(7, c, s, s, generator=generator) for c, s in ((5, 4), (6, 2))] for _ in range(2))
    weight = origin_weights(ORIGINS, set(ORIGINS), torch.empty(()))
    alone = [
        student_loss([f[i : i + 1] for f in student], [f[i : i + 1] for f in teacher], weight[i : i + 1])
        for i in range(7)
    ]
    torch.testing.assert_close(student_loss(student, teacher, weight), torch.stack(alone).mean())


def test_the_gradient_weighs_each_picture() -> None:
    student = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(1)).expand(2, -1, -1, -1).contiguous()
    student[1] = student[0]
    student.requires_grad_()
    student_loss([student], [teacher], origin_weights(("ok", "generated"), {"ok", "generated"}, student)).backward()
    torch.testing.assert_close(student.grad[0], 9 * student.grad[1])


def test_the_spec_compares_what_the_loss_compares() -> None:
    """The same op, hence the same numbers, as the slow truth."""
    generator = np.random.default_rng(0)
    s, t = (generator.normal(size=(1, 5, 4, 4)).astype(np.float32) for _ in range(2))
    truth = distance(s.astype(np.float64), t.astype(np.float64), metric="cosine")
    loss = student_loss([torch.from_numpy(s)], [torch.from_numpy(t)], torch.ones(1))
    assert loss.item() == pytest.approx(truth.mean(), rel=1e-5)
    assert [term.metric for term in stfpm_spec(TINY).terms] == ["cosine"] * 3


@pytest.mark.parametrize("cache", [0, 64])
def test_the_teacher_stays_and_every_part_of_the_student_learns(cache: int) -> None:
    made = network()
    teacher, student = copied(made.teacher), copied(made.student)
    step = StudentStep(made, changed(cache_mb=cache))
    made.train()
    for _ in range(3):
        step.begin_epoch([])
        step.step(batch())
    assert equal(made.teacher, teacher)
    assert [name for name, value in made.student.named_parameters() if torch.equal(value, student[name])] == []


def test_teacher_features_that_are_kept_are_those_of_the_teacher() -> None:
    """By a picture's place, whatever shares a batch with it."""
    made = network()
    step = StudentStep(made, changed(cache_mb=64))
    step._teacher(batch(4))
    kept = step._teacher(batch(5, first=2))
    assert len(step._kept) == 7
    for a, b in zip(kept, made.teacher(batch(5, first=2).x), strict=True):
        torch.testing.assert_close(a, b)
    moved = batch(5, first=2)
    assert torch.equal(step._teacher(Batch(moved.x + 1, *list(vars(moved).values())[1:]))[0], kept[0])


@pytest.mark.parametrize("fields", [{"cache_mb": 0}, {"flip": True}, {"rotate": 5.0}])
def test_nothing_is_kept_without_room_or_of_pictures_that_change(fields: dict[str, Any]) -> None:
    step = StudentStep(network(), changed(**fields))
    step._teacher(batch())
    assert step._kept == {}


def test_the_rate_falls_as_a_cosine() -> None:
    step = StudentStep(network(), changed(epochs=4, decay="cosine", learning_rate=1.0))
    rates = []
    for _ in range(4):
        step.begin_epoch([])
        rates.append(step.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_without_a_task_the_teacher_stage_is_skipped() -> None:
    assert TeacherStep(network(), TINY).schedule.epochs == 0
    assert TeacherStep(network(), changed(teacher_task="best", teacher_epochs=3)).schedule.epochs == 6


def test_each_task_begins_with_the_teacher_as_it_was() -> None:
    config = changed(teacher_task="best", teacher_epochs=1, teacher_learning_rate=1e-3)
    made = network(config)
    first = copied(made.teacher)
    step = TeacherStep(made, config)
    step.begin_epoch([])
    step.step(batch())
    assert step.task == "cutpaste"
    assert not equal(made.teacher, first)
    step.begin_epoch([])
    assert step.task == "rotation"
    assert equal(made.teacher, first)
    step.step(batch())
    assert not equal(made.teacher, first)


def test_the_supervised_form_weighs_by_origin() -> None:
    """The source's: bad 10, ok 5, from template 2, generated 1."""
    config = changed(teacher_task="supervised")
    step = TeacherStep(network(config), config)
    assert step.schedule.abnormal
    origin = ("abnormal", "ok", TEMPLATE, "generated")
    with torch.no_grad():
        step.head.weight.zero_()  # every logit 0: each cross-entropy is log 2
    found = step._supervised(batch(4, origin=origin)).item()
    assert found == pytest.approx((10 + 5 + 2 + 1) / 4 * np.log(2), rel=1e-6)


def test_rotation_says_which_way() -> None:
    x = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    turned, which = rotated(x, torch.Generator().manual_seed(1))
    assert len(which.unique()) > 2
    for image, k, source in zip(turned, which, x, strict=True):
        assert torch.equal(image, torch.rot90(source, int(k), (1, 2)))


def test_cutpaste_moves_one_patch() -> None:
    x = torch.randn(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    both, which = cutpaste(x, torch.Generator().manual_seed(1))
    assert torch.equal(x, before)
    assert torch.equal(both[:40], x)
    assert which.tolist() == [0] * 40 + [1] * 40
    shares = (both[40:] != x).any(1).float().mean((1, 2))
    assert ((shares > 0) & (shares < 0.2)).all()
    rows = (both[40:] != x).any(1).any(2)
    assert all(int(r.nonzero().max() - r.nonzero().min()) + 1 == int(r.sum()) for r in rows)  # one piece


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small file of the kind that ends at layer3 with batch norm folded away."""
    state = network().teacher.state_dict()
    path = tmp_path / "folded.npz"
    np.savez(path, **{name: value.numpy() for name, value in state.items()})
    return path


def test_weights_from_a_file_are_in_the_manifest(weights: Path) -> None:
    made = StfpmNetwork(TINY)
    found = FAMILY.start(made, TINY.model_copy(update={"weights": str(weights)}))
    assert found == {"backbone": "resnet18", "origin": "folded.npz", "sha256": sha256(weights)}
    assert equal(made.teacher, network().teacher.state_dict())


def test_a_bundle_does_not_say_where_the_weights_lay() -> None:
    config = TINY.model_copy(update={"weights": "/home/someone/resnet18.pth"})
    assert config.portable() == {**config.model_dump(mode="json"), "weights": "resnet18.pth"}


def run(data: Path, folder: Path, resume: bool = False, **fields: Any) -> Run:
    overrides = {**FAMILY.tiny, **fields}
    return train("stfpm", data, folder, preset="paper", overrides=overrides, resume=resume)


def test_a_run_that_is_stopped_in_any_stage_ends_the_same(
    skin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(skin, tmp_path / "whole")
    assert whole.manifest["weights"]["origin"] == "random, seed 0"
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["epoch"]) for row in log] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    epoch = Loop._epoch
    left = [1]

    def interrupted(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        epoch(*arguments)

    monkeypatch.setattr(Loop, "_epoch", interrupted)
    for stop in range(4):
        left[0] = 1
        if stop < 3:
            with pytest.raises(KeyboardInterrupt):
                run(skin, tmp_path / "parts", resume=stop > 0)
    monkeypatch.undo()
    run(skin, tmp_path / "parts", resume=True)
    a, b = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)


def test_a_task_that_only_harms_leaves_the_teacher_as_it_was(skin: Path, tmp_path: Path) -> None:
    done = run(skin, tmp_path / "run", teacher_task="rotation", teacher_learning_rate=0.03, epochs=1)
    assert equal(done.network().teacher, network(StfpmConfig.parse({**FAMILY.tiny})).teacher.state_dict())


def test_known_abnormal_pictures_teach_the_teacher_only(skin: Path, tmp_path: Path, monkeypatch: Any) -> None:
    seen: dict[str, set[str]] = {"TeacherStep": set(), "StudentStep": set()}
    for made in (TeacherStep, StudentStep):
        monkeypatch.setattr(made, "step", spy(made.step, seen[made.__name__]))
    abnormal = tmp_path / "bad"
    abnormal.mkdir()
    for i, path in enumerate(sorted((skin / "test" / "abnormal").iterdir())):
        (abnormal / f"{i}.png").write_bytes(path.read_bytes())
    overrides = {k: v for k, v in FAMILY.tiny.items() if k != "teacher_task"} | {"epochs": 1}
    with pytest.raises(InputError, match="have the same content"):  # they are test pictures
        train("stfpm", skin, tmp_path / "run", preset="paper", overrides=overrides, abnormal=abnormal)
    data = tmp_path / "data" / "train"
    data.parent.mkdir()
    data.symlink_to(skin / "train")
    done = train("stfpm", data.parent, tmp_path / "run", preset="paper", overrides=overrides, abnormal=abnormal)
    assert seen == {"TeacherStep": {"ok", "abnormal"}, "StudentStep": {"ok"}}
    assert done.manifest["supervision"] == "supervised"
    assert done.manifest["data"]["origins"] == {"ok": 48, "abnormal": 6}
    assert "the training saw 6 pictures of origin `abnormal`" in card(done)
    assert "Weights at the start: resnet18 (random, seed 0)." in card(done)
    with pytest.raises(UsageError, match="needs abnormal pictures; name their folder with --abnormal"):
        run(skin, tmp_path / "other", teacher_task="supervised")


def spy(step: Callable[..., Any], seen: set[str]) -> Callable[..., Any]:
    def spied(self: Any, given: Batch) -> Any:
        assert given.origins >= set(given.origin)
        seen.update(given.origin)
        return step(self, given)

    return spied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 1}, "expected 3: the teacher has seen colour"),
        ({"width": 32}, "expected 64 where weights is 'torchvision'"),
        ({"fuse": "mean"}, r"config\.fuse"),
        ({"teacher_task": "jigsaw"}, r"config\.teacher_task"),
        ({"pool": {"topk": 2.0}}, r"pool\.topk"),
        ({"learnin_rate": 1}, "did you mean 'learning_rate'"),
    ],
)
def test_a_wrong_configuration_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FAMILY.spec(StfpmConfig.preset("small", change))


def test_sum_and_area_are_to_be_had() -> None:
    spec = stfpm_spec(changed(fuse="sum", pool={"area": 1.5}, group="max"))
    assert (spec.fuse, spec.pool, spec.map.blur_sigma) == ("sum", {"area": 1.5}, 1.0)
