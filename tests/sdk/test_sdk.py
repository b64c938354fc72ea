"""The SDK against Python, on the same bundle and engine. NORMSCAN_SDK names the folder that it was built in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bundles import seal
from normscan.deploy.session import Session

if "NORMSCAN_SDK" not in os.environ:
    pytest.skip("NORMSCAN_SDK names no build folder of the SDK", allow_module_level=True)
BUILD = Path(os.environ["NORMSCAN_SDK"]).resolve()
if not list(BUILD.glob("lib/normscan/libnormscan_engine_openvino.*")):
    pytest.skip("the SDK was built without OpenVINO", allow_module_level=True)
pytest.importorskip("openvino")


def score_one(bundle: Path, picture: Path, *rest: Path) -> subprocess.CompletedProcess[str]:
    """Run the example, without anything of Python in its environment."""
    command = [str(BUILD / "examples" / "score_one"), str(bundle), str(picture), *map(str, rest)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """As binary PGM or PPM."""
    kind = "P5" if pixels.ndim == 2 else "P6"
    path.write_bytes(f"{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes())
    return path


@pytest.mark.parametrize("colour", [True, False])
def test_scores_and_maps_are_those_of_python(exported: Path, picture: np.ndarray, tmp_path: Path, colour: bool) -> None:
    pixels = picture if colour else np.ascontiguousarray(picture[..., 1])
    session = Session.open(exported, engine="openvino")
    expected = session.score(pixels)

    done = score_one(exported, write_picture(tmp_path / "picture.ppm", pixels), tmp_path / "map.pgm")

    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert float(said["score"]) == pytest.approx(expected.score, abs=1e-6 * session.spread, rel=1e-6)
    assert said["decision"] == {None: "undecided", False: "normal", True: "anomalous"}[expected.decision]
    assert said["engine"].startswith("openvino ")
    low, high = session.map_scale
    grey = np.floor(np.clip((expected.map - low) / (high - low), 0, 1) * 255 + 0.5)
    header, found = f"P5\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode(), (tmp_path / "map.pgm").read_bytes()
    assert found.startswith(header)
    assert np.abs(np.frombuffer(found[len(header) :], np.uint8).astype(float) - grey.ravel()).max() <= 1


def test_core_reads_what_python_exported(exported: Path) -> None:
    tests = BUILD / "tests" / "native" / "sdk" / "normscan_sdk_tests"
    if not tests.exists():
        pytest.skip("the SDK was built without its tests")
    environment = {**os.environ, "NORMSCAN_TEST_BUNDLES": str(exported)}
    done = subprocess.run([tests, "bundle_from_python"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_damage_is_told(bundle: Path, picture: np.ndarray, tmp_path: Path) -> None:
    pixels = write_picture(tmp_path / "picture.ppm", picture)
    model = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    done = score_one(bundle, pixels)
    assert done.returncode == 1
    assert "model.onnx has been altered" in done.stderr

    (bundle / "model.onnx").write_bytes(model)
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "spread": 1.0}), "utf-8")
    done = score_one(bundle, pixels)
    assert done.returncode == 1
    assert "manifest.json has been altered" in done.stderr


def test_a_network_that_openvino_cannot_read_is_told(bundle: Path, picture: np.ndarray, tmp_path: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"no network")
    seal(bundle)
    done = score_one(bundle, write_picture(tmp_path / "picture.ppm", picture))
    assert done.returncode == 1
    assert "openvino: " in done.stderr
    assert "cannot be opened by openvino" in done.stderr
