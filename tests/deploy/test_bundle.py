"""A bundle is verified before it is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from normscan.deploy.bundle import FILES, Bundle, write_manifest
from normscan.deploy.session import load
from normscan.errors import BundleError
from normscan.files import canonical_json


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and give it its right hash again: an attacker can do that too."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    manifest.pop("sha256")
    manifest["sha256"] = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_opens(bundle: Path) -> None:
    found = Bundle.open(bundle)
    assert found.spec.family == "ocad"
    assert {p.name for p in bundle.iterdir()} == {"manifest.json", *FILES}
    assert "Not a medical device" in (bundle / "card.md").read_text()


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_found(bundle: Path, name: str, place: float) -> None:
    data = bytearray((bundle / name).read_bytes())
    # JSON may be spaced differently and still say the same: change a digit or letter, never a blank.
    at = next(i for i in range(int(place * len(data)), len(data)) if name != "manifest.json" or chr(data[i]).isalnum())
    data[at] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_longer_file_is_named(bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data + b"x")
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle)


def test_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="plain file"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["files"].update({"../secret": m["files"]["card.md"]}), r"names '\.\./secret'"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"]["card.md"]}), "names '/etc/passwd'"),
        (lambda m: m["files"].pop("model.onnx"), "no hash and size of model.onnx"),
        (lambda m: m.update(schema=2), "schema is 2, expected 1"),
        (lambda m: m.pop("spread"), "spread is None"),
        (lambda m: m.update(spread=-1.0), "spread is -1.0, expected a positive"),
        (lambda m: m.update(map_scale=[1.0]), "map_scale"),
        (lambda m: m.update(map_scale=["a", "b"]), "map_scale"),
        (lambda m: m["training"].pop("seen"), r"training\.seen"),
        (lambda m: m.pop("paper"), "paper is None"),
        (lambda m: m["spec"]["terms"][0].update(op="magic"), r"terms\[0\]\.op"),
        (lambda m: m["spec"]["terms"][0].update(metric="l3"), r"terms\[0\]\.metric"),
        (lambda m: m["spec"]["terms"][0].update(wieght=1.0), "weight"),
    ],
    ids=[
        "outside",
        "absolute",
        "missing",
        "schema",
        "spread",
        "spread<0",
        "scale",
        "scale text",
        "seen",
        "paper",
        "op",
        "metric",
        "key",
    ],
)
def test_a_wrong_manifest_is_refused(bundle: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


def test_a_nan_weight_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    text = json.dumps(manifest).replace('"weight": 0.42', '"weight": NaN', 1)
    assert "NaN" in text
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no folder"):
        Bundle.open(tmp_path / "x.normscan")
    (tmp_path / "x.normscan").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        Bundle.open(tmp_path / "x.normscan")
    (tmp_path / "x.normscan" / "manifest.json").write_text("[1,")
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(tmp_path / "x.normscan")
    depth = "[" * 100_000
    (tmp_path / "x.normscan" / "manifest.json").write_text(depth)
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(tmp_path / "x.normscan")


def test_a_file_too_many_is_refused(bundle: Path) -> None:
    """ONNX Runtime would load weights from beside the model if the model said so."""
    (bundle / "weights.bin").touch()
    with pytest.raises(BundleError, match=r"holds 'weights\.bin'"):
        Bundle.open(bundle)


def test_statistics_that_do_not_fit_are_named(bundle: Path) -> None:
    stats = load_file(bundle / "stats.safetensors")
    save_file({name: value[:2] for name, value in stats.items()}, bundle / "stats.safetensors")
    seal(bundle)
    with pytest.raises(BundleError, match=r"stats\.safetensors does not fit the spec"):
        Bundle.open(bundle).scorer()


def test_golden_answers_that_are_missing_are_named(bundle: Path) -> None:
    golden = load_file(bundle / "golden.safetensors")
    golden.pop("map")
    save_file(golden, bundle / "golden.safetensors")
    seal(bundle)
    with pytest.raises(BundleError, match=r"golden\.safetensors holds"):
        Bundle.open(bundle).golden()


def test_a_model_of_another_kind_is_named(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    model.graph.output[2].name = model.graph.node[0].output[0]
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    seal(bundle)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        load(bundle)


def test_a_dtype_that_numpy_lacks_is_named(bundle: Path) -> None:
    save_torch({"latent.mean": torch.zeros(4, dtype=torch.bfloat16)}, bundle / "stats.safetensors")
    seal(bundle)
    with pytest.raises(BundleError, match=r"stats\.safetensors cannot be read"):
        Bundle.open(bundle).scorer()


def test_a_spec_whose_input_does_not_fit_the_model_is_named(bundle: Path, picture: np.ndarray) -> None:
    rewrite(bundle, lambda m: m["spec"]["input"].update(channels=1, mean=[0], std=[1]))
    with pytest.raises(BundleError, match=r"model\.onnx cannot run on x \[1, 1, 16, 16\]"):
        load(bundle).score(picture)


def seal(bundle: Path) -> None:
    """Give an altered bundle its right hashes again."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {k: v for k, v in manifest.items() if k not in ("files", "sha256", "schema")})
