"""The traps of `patch_cnn`'s sources (METHODS), each closed."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normscan.data.histology import read_histology
from normscan.deploy.card import card
from normscan.errors import ConfigError, InputError
from normscan.families.patch_cnn import FAMILY
from normscan.families.patch_cnn.config import PatchCnnConfig
from normscan.families.patch_cnn.network import PatchCnn, finish
from normscan.families.patch_cnn.spec import patch_cnn_spec
from normscan.families.patch_cnn.step import PatchCnnStep, _class_weights, classification_loss
from normscan.scoring.scorer import Scorer
from normscan.train.folder import Run
from normscan.train.run import train

TINY = PatchCnnConfig.parse(FAMILY.tiny)


def network(**fields: Any) -> PatchCnn:
    torch.manual_seed(0)
    return PatchCnn(TINY.model_copy(update=fields)).eval()


def test_the_loss_takes_logits_and_no_softmax_before() -> None:
    """A softmax in front bounds the loss by 1.32 and lets the gradient of a sure mistake vanish."""
    logits = torch.tensor([[0.0, 20.0], [3.0, 1.0]], requires_grad=True)
    loss = classification_loss(logits, torch.tensor([0, 0]), torch.ones(2), torch.ones(2))
    assert loss.item() == pytest.approx((20.0 + np.log1p(np.exp(-2.0))) / 2, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].item() == pytest.approx(0.5, rel=1e-6)


def test_training_itself_has_no_softmax_before_the_loss() -> None:
    net = network().train()
    step = PatchCnnStep(net, TINY)
    with torch.no_grad():
        net.classifier.weight.zero_()
        net.classifier.bias.copy_(torch.tensor([0.0, 30.0]))
    step.classes = torch.ones(2)
    x = torch.rand(4, 3, 32, 32)
    from normscan.families.family import Batch

    batch = Batch(x, torch.zeros(4, dtype=torch.int64), torch.ones(4), torch.arange(4), ("ok",) * 4)
    assert step.step(batch)["loss"] == pytest.approx(30.0, rel=1e-5)


def test_classes_weigh_alike() -> None:
    classes = _class_weights(torch.tensor([0] * 30 + [1] * 10 + [-1] * 5))
    assert classes.tolist() == pytest.approx([40 / 60, 2.0])
    logits = torch.randn(45, 2, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0] * 30 + [1] * 10 + [-1] * 5)
    each = F.cross_entropy(logits[:40], label[:40], reduction="none")
    wanted = (each[:30].mean() / 2 + each[30:].mean() / 2) * 40 / 45
    found = classification_loss(logits, label, torch.ones(45), classes)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    with pytest.raises(InputError, match="3 normal and 0 abnormal"):
        _class_weights(torch.zeros(3))


def test_a_batch_of_unknown_labels_teaches_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = classification_loss(logits, torch.full((3,), -1), torch.ones(3), torch.ones(2))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_probability_is_calibrated_and_is_the_score() -> None:
    net = network()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        logits = net(torch.from_numpy(x)).logits.numpy()
    evidence = logits[:, 1] - logits[:, 0]
    labels = (evidence + rng.normal(size=60) * evidence.std() > np.median(evidence)).astype(int)
    found = finish(net, [(x[:32], labels[:32]), (x[32:], labels[32:])])
    with torch.no_grad():
        outputs = net(torch.from_numpy(x))
    probability = outputs.probability.numpy()[:, 0]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-(found["slope"] * evidence + found["offset"]))), atol=1e-5)
    assert probability.mean() == pytest.approx(labels.mean(), abs=0.03)
    scores = Scorer(patch_cnn_spec(TINY), {}).score({n: v.numpy() for n, v in outputs._asdict().items()})
    np.testing.assert_allclose(scores.scores, probability, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"channels": 1}, "expected 3"),
        ({"width": 8, "weights": "torchvision"}, "width: 8, expected 64"),
        ({"backbone": "resnet19"}, "backbone is 'resnet19'"),
        ({"layer": "layer5"}, "found 'layer5'"),
    ],
)
def test_bad_config(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PatchCnnConfig.parse({**TINY.model_dump(), **fields})


def test_vgg_and_folded_backbones() -> None:
    for fields in ({"backbone": "vgg19", "layer": "relu2_2"}, {"batch_norm": False}):
        outputs = network(**fields)(torch.rand(2, 3, 32, 32))
        assert outputs.probability.shape == (2, 1)


def test_a_cohort_is_learnt_by_patient(cohort: Path, tmp_path: Path) -> None:
    """No patient in two parts; annotated patches alone, no uncertain one; both kinds in train and validation."""
    run = train("patch_cnn", cohort, tmp_path / "run", overrides={**FAMILY.tiny, "epochs": 1})
    with (run.folder / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    parts: defaultdict[str, set[str]] = defaultdict(set)
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        parts[row["group"]].add(row["split"])
        labels[row["split"]][row["label"]] += 1
        assert row["split"] == "test" or row["file"].startswith("AnnotatedPatches")
    assert all(len(found) == 1 for found in parts.values())
    assert min(labels["train"]["0"], labels["train"]["1"], labels["validation"]["0"], labels["validation"]["1"]) > 0
    assert set(labels["calibration"]) == {"0"}
    uncertain = {r.path.relative_to(cohort).as_posix() for r in read_histology(cohort).uncertain}
    assert uncertain.isdisjoint(row["file"] for row in rows)
    assert run.manifest["data"]["groups"] == {
        part: len({r["group"] for r in rows if r["split"] == part}) for part in labels
    }
    assert set(run.manifest["finished"]) == {"slope", "offset"}
    assert "labelled_auroc" in run.manifest["validation"]
    assert "Labelled validation pictures" in card(Run.open(run.folder))


def test_a_folder_without_abnormal_pictures_is_refused(skin: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="abnormal training images of 0 groups; expected at least 2"):
        train("patch_cnn", skin, tmp_path / "run", overrides=FAMILY.tiny)
    assert not (tmp_path / "run").exists()
