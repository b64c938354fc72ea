"""In which float a step computes, and that nothing but the step does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from normscan.train.precision import resolve_precision
from normscan.train.run import train

CPU = torch.device("cpu")


def test_names() -> None:
    assert resolve_precision("float32", CPU) == torch.float32
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_auto_asks_the_processor(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert resolve_precision("auto", CPU) == expected


@pytest.mark.parametrize("family", ["ocad", "stfpm"])
def test_a_bfloat16_run_is_another_one_near_by_with_float32_weights(skin: Path, tmp_path: Path, family: str) -> None:
    from normscan.families import family as find_family

    weights, losses = {}, {}
    for precision in ("float32", "bfloat16"):
        card = find_family(family)
        tiny = {**card.tiny, "epochs": 1, "precision": precision}
        if family == "stfpm":
            tiny["teacher_task"] = "none"
        run = train(family, skin, tmp_path / precision, preset="paper", overrides=tiny)
        assert json.loads((run.folder / "manifest.json").read_text())["precision"] == precision
        weights[precision] = load_file(run.folder / "network.safetensors")
        losses[precision] = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert {w.dtype for w in weights["bfloat16"].values()} <= {torch.float32, torch.int64}
    assert any(not torch.equal(weights["float32"][name], weights["bfloat16"][name]) for name in weights["float32"])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
