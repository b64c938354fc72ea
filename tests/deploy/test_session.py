"""A session scores paths, arrays and batches alike, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import normscan
from normscan.errors import ArgumentError, ImageError, InputError, MissingExtraError, UsageError

# A stand-in for an environment without the `train` extra: torch cannot be imported, whatever is installed.
NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""


def test_paths_arrays_and_batches_agree(bundle: Path, skin: Path) -> None:
    from normscan.data.read import read_image

    session = normscan.load(bundle)
    paths = sorted((skin / "test").rglob("*.png"))
    single = [session.score(path) for path in paths]
    batched = session.score([read_image(path) for path in paths])
    stacked = session.score(np.stack([read_image(path) for path in paths]))
    for a, b, c in zip(single, batched, stacked, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4 * session.spread)
        assert b.score == c.score
        assert a.decision == (a.score > (a.threshold or 0.0))
    assert session.score([]) == []


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_scores_do_not_depend_on_the_batch(bundle: Path, skin: Path, batch_size: int) -> None:
    session = normscan.load(bundle)
    paths = sorted((skin / "train").rglob("*.png"))
    alone = [session.score(path).score for path in paths]
    found = [r.score for _, r in session.stream(paths, batch_size=batch_size) if isinstance(r, normscan.Result)]
    np.testing.assert_allclose(found, alone, atol=1e-4 * session.spread)


def test_maps_come_back_in_the_picture_geometry(bundle: Path, picture: np.ndarray) -> None:
    session = normscan.load(bundle)
    for pixels in (picture, picture[:, :, 0], picture.astype(np.uint16) * 257, picture.astype(np.float32) / 255):
        result = session.score(pixels)
        assert result.map.shape == (40, 56)
        assert result.map.dtype == np.float32
    eight, sixteen = session.score(picture), session.score(picture.astype(np.uint16) * 257)
    assert eight.score == pytest.approx(sixteen.score, rel=1e-5)


def test_bad_pixels(bundle: Path, picture: np.ndarray) -> None:
    session = normscan.load(bundle)
    broken = picture.astype(np.float32) / 255
    broken[3, 4, 1] = np.nan
    with pytest.raises(ImageError, match="1 values that are NaN or infinite"):
        session.score(broken)
    with pytest.raises(ImageError, match=r"float pixels from \d+ to \d+; expected finite values, 0 to 1"):
        session.score(picture.astype(np.float32))
    with pytest.raises(ImageError, match="found int32 pixels"):
        session.score(picture.astype(np.int32))
    with pytest.raises(ImageError, match="empty array"):
        session.score(picture[:0])
    with pytest.raises(ArgumentError, match="image"):
        session.score(picture[:, :, :2])
    for wrong in (None, 3, {"a": 1}, torch.from_numpy(picture)):
        with pytest.raises(ArgumentError, match="expected a path, a numpy array, or a list of either"):
            session.score(wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("how", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 10**30}, {"workers": 0}])
def test_impossible_streams_are_refused_at_once(bundle: Path, how: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="batch_size"):
        normscan.load(bundle).stream([], **how)


def test_stream_goes_on_past_bad_files(bundle: Path, skin: Path, tmp_path: Path) -> None:
    good = sorted((skin / "test" / "normal").glob("*.png"))[:2]
    (tmp_path / "bad.png").write_text("no picture")
    paths = [good[0], tmp_path / "bad.png", tmp_path / "gone.png", good[1]]
    found = list(normscan.load(bundle).stream(paths, batch_size=3))
    assert [path for path, _ in found] == paths
    assert [isinstance(result, InputError) for _, result in found] == [False, True, True, False]


def test_engines_and_devices(bundle: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run folder, not a bundle"):
        normscan.load(bundle, engine="torch")
    with pytest.raises(UsageError, match="there are: onnxruntime"):
        normscan.load(bundle, engine="onnxruntim")
    with pytest.raises(UsageError, match="--device cuda"):
        normscan.load(bundle, device="cuda")
    with pytest.raises(UsageError, match="--device cuda"):
        normscan.load(run, device="cuda:0")
    with pytest.raises(InputError, match="does not exist"):
        normscan.load(tmp_path / "nothing")
    assert normscan.load(run).engine.name == "torch"


def test_scores_without_torch_equal_training_time_validation(exported: Path, run: Path, skin: Path) -> None:
    code = f"""{NO_TORCH}
import json, normscan
session = normscan.load({str(exported)!r})
rows = [line.split(",") for line in open({str(run / "validation.csv")!r}).read().splitlines()[1:]]
found = [session.score({str(skin)!r} + "/" + name).score for name, _ in rows]
assert "torch" not in sys.modules
print(json.dumps([found, [float(score) for _, score in rows], session.spread]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, expected, spread = json.loads(done.stdout)
    np.testing.assert_allclose(found, expected, atol=1e-3 * spread)


def test_a_missing_extra_is_named(run: Path) -> None:
    code = f"""{NO_TORCH}
import importlib.util, normscan
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
try:
    normscan.load({str(run)!r})
except normscan.Error as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert MissingExtraError.__name__ in done.stdout
    assert "normscan[train]" in done.stdout


@pytest.mark.parametrize(
    ("slow", "limit"), [("read", "read"), ("engine", "engine"), ("consumer", "elsewhere"), ("score", "score")]
)
def test_a_stream_knows_what_it_waits_for(
    exported: Path, picture: np.ndarray, slow: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = normscan.load(exported, threads=1)

    def late(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            if name == slow:
                time.sleep(0.05)
            return function(*given)

        return called

    monkeypatch.setattr(session.engine, "run", late("engine", session.engine.run))
    monkeypatch.setattr(session.scorer, "score", late("score", session.scorer.score))
    consume = late("consumer", lambda _: None)
    for _, result in session.stream_pixels(range(8), late("read", lambda _: picture), batch_size=1, workers=1):
        consume(result)
    assert session.hops.limit == limit
    assert session.hops.pictures == 8
    assert f"8 pictures in {session.hops.explain().split()[3]} s" in session.hops.explain()
    assert session.hops.explain().endswith(f"the limit: {limit}")
    assert session.hops.seconds["read"] > 0.35 or slow != "read"


def test_export_without_onnx_names_the_extra(run: Path) -> None:
    code = f"""
import sys, importlib.util
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnx", "onnxscript"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "onnx" else find(name, package)
import normscan
from normscan.deploy.export import export
try:
    export({str(run)!r})
except normscan.Error as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MissingExtraError onnx is not installed; it comes with: pip install 'normscan[export]'" in done.stdout
