"""Verify finds a network that scores differently, and export leaves nothing that disagrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

import normscan
from bundles import nudge_weights, seal
from normscan.deploy import export as export_module
from normscan.deploy.bundle import FILES
from normscan.deploy.verify import LIMITS, verify
from normscan.errors import InputError, ParityError


def test_a_bundle_verifies(bundle: Path) -> None:
    """On every engine that is here."""
    found = verify(bundle)
    assert [c.engine for c in found] == ["onnxruntime", "openvino"]
    for comparison in found:
        assert comparison.passed
        assert comparison.images == 8
        assert comparison.output_error < 1e-3
        assert comparison.flips == 0


def test_real_images_against_torch(bundle: Path, run: Path, skin: Path) -> None:
    found = verify(bundle, data=skin / "test", run=run)
    assert [c.against for c in found] == ["golden", "golden", "torch", "torch"]
    ranked = verify(bundle, data=skin, run=run, engines=["openvino"])[-1]
    assert (ranked.images, ranked.flips, ranked.auroc_difference) == (12, 0, 0.0)
    assert ranked.score_error < 1e-3
    assert all(c.passed for c in found)
    with pytest.raises(InputError, match="--run"):
        verify(bundle, data=skin)


def test_other_weights_are_found(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(nudge_weights((bundle / "model.onnx").read_bytes(), 1.05))
    seal(bundle)
    with pytest.raises(ParityError, match="DISAGREES"):
        verify(bundle)


def test_other_golden_scores_are_found(bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    golden["score"] = golden["score"] + 2 * LIMITS[0] * normscan.load(bundle).spread
    save_file(golden, bundle / "golden.safetensors")
    seal(bundle)
    with pytest.raises(ParityError, match="score error"):
        verify(bundle)


@pytest.mark.parametrize("name", ["map", "output.latent"])
def test_other_golden_maps_and_outputs_are_found(bundle: Path, name: str) -> None:
    golden = load_file(bundle / "golden.safetensors")
    golden[name] = golden[name] * np.float32(1.5)
    save_file(golden, bundle / "golden.safetensors")
    seal(bundle)
    with pytest.raises(ParityError, match="error"):
        verify(bundle)


def test_export_leaves_nothing_that_disagrees(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = export_module.onnx_bytes
    monkeypatch.setattr(export_module, "onnx_bytes", lambda *a: nudge_weights(original(*a), 1.05))
    with pytest.raises(ParityError):
        export_module.export(run, tmp_path / "x.normscan")
    assert list(tmp_path.iterdir()) == []


def test_a_flip_counts_only_beyond_the_tolerance(bundle: Path) -> None:
    from normscan.deploy.bundle import Bundle
    from normscan.deploy.verify import _compare, _largest
    from normscan.scoring.scorer import Scorer

    opened = Bundle.open(bundle)
    spec, stats = opened.spec, opened.scorer().stats
    assert spec.calibration is not None
    scorer = Scorer(spec.with_calibration(replace(spec.calibration, threshold=1.0)), stats)
    near, far = np.asarray([1.0 - 1e-5]), np.asarray([0.5])
    flipped = np.asarray([1.0 + 1e-5])
    close = _compare("e", "r", scorer, 1.0, flipped, near, (0.0, 0.0, 0.0))
    assert (close.flips, close.at_threshold, close.passed) == (0, 1, True)
    wrong = _compare("e", "r", scorer, 1.0, flipped, far, (0.0, 0.0, 0.0))
    assert (wrong.flips, wrong.passed) == (1, False)
    assert _largest(np.asarray([0.0, np.nan])) == np.inf
    for errors in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (np.inf, 0.0, 0.0)):
        assert not _compare("e", "r", scorer, 1.0, far, far, errors).passed


def test_onnx_stands_alone(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {p.name for p in bundle.iterdir()} == {"manifest.json", *FILES}
    assert [v.name for v in model.graph.input] == ["x"]
    assert [v.name for v in model.graph.output] == ["image", "reconstruction", "latent"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
