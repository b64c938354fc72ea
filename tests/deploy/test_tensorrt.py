"""Engines for GPUs that are not here: built for real, kept beside the bundle, refused with words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from fake_gpu import Code, FakeCuda
from normscan.deploy import tensorrt
from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile, Fingerprint, cache_folder
from normscan.deploy.precision import at_precision
from normscan.deploy.quantisation import ranges
from normscan.deploy.tensorrt import DEFAULT_GPUS, Target, engine_for
from normscan.errors import BundleError, DeviceError, MissingExtraError, UsageError

SMALL = Target(batch=(1, 2, 4))
HEAD = b"vtrt"
"""With which an engine of TensorRT-RTX begins."""


def in_precision(bundle: Path, precision: str) -> Bundle:
    opened = Bundle.open(bundle)
    model = at_precision(opened.model, precision, ranges=ranges(opened.model, [opened.golden()["x"]]))
    manifest = {**opened.manifest, "precision": {**opened.manifest["precision"], "name": precision}}
    return replace(opened, manifest=manifest, files={**opened.files, "model.onnx": model})


def test_an_engine_is_built_once_and_lies_beside_the_bundle(
    bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle)
    path, built = engine_for(opened, SMALL)
    assert path.parent == cache_folder(opened) == bundle.with_name("ocad.engines")
    assert path.name == "fp32-tensorrt-rtx-default.engine"
    assert built.engine.startswith(HEAD)
    assert built.fingerprint.gpus == DEFAULT_GPUS
    assert built.fingerprint.bundle == opened.manifest["sha256"]
    assert built.fingerprint.input == (3, 16, 16)
    assert "building with tensorrt-rtx" in capfd.readouterr().err
    assert EngineFile.read(path) == built
    assert Bundle.open(bundle).manifest == opened.manifest  # nothing was put into it
    monkeypatch.setattr(tensorrt, "_build", lambda *_: pytest.fail("built twice"))
    assert engine_for(opened, SMALL) == (path, built)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_lower_precisions_build_for_turing_too(bundle: Path, precision: str) -> None:
    gpus = ("sm86",) if precision == "bf16" else ("sm75", "sm86")  # Turing has no bfloat16
    path, built = engine_for(in_precision(bundle, precision), replace(SMALL, gpus=gpus))
    assert path.name == f"{precision}-tensorrt-rtx-{'+'.join(gpus)}.engine"
    assert built.fingerprint.gpus == gpus
    assert built.engine.startswith(HEAD)


def test_float32_products_of_turing_are_told(bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"could not build fp32 for sm75: .*GEMM.*: --precision fp16 or int8"):
        engine_for(Bundle.open(bundle), replace(SMALL, gpus=("sm75",)))
    assert not bundle.with_name("ocad.engines").exists()


def stored(bundle: Path, change: Callable[[Fingerprint], Fingerprint]) -> Path:
    """An engine in the cache whose fingerprint is another."""
    opened = Bundle.open(bundle)
    wanted = tensorrt._fingerprint(opened, SMALL, tensorrt.library("tensorrt-rtx"))
    path = cache_folder(opened) / "fp32-tensorrt-rtx-default.engine"
    path.parent.mkdir()
    EngineFile(change(wanted), b"engine").write(path)
    return path


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("bundle", "0" * 64, "bundle is '000"),
        ("version", "1.6.0", "version is '1.6.0', needed"),
        ("gpus", ("sm86",), r"gpus is ('sm86',), needed ('sm80'"),
        ("batch", (1, 1, 1), "batch is (1, 1, 1), needed (1, 2, 4)"),
    ],
)
def test_an_engine_that_does_not_fit_is_built_again(
    bundle: Path, field: str, value: Any, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(bundle, lambda wanted: replace(wanted, **{field: value}))
    monkeypatch.setattr(tensorrt, "_build", lambda *_: b"new")
    assert engine_for(Bundle.open(bundle), SMALL)[1].engine == b"new"
    err = capsys.readouterr().err
    assert said in err
    assert "does not fit any more" in err
    assert EngineFile.read(path).engine == b"new"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-2], "holds 4 bytes of an engine, its header says 6"),
        (lambda content: content[:-1] + b"x", "has been altered"),
        (lambda content: content[:20], "is no engine of normscan"),
        (lambda content: b"", "is no engine of normscan"),
        (lambda content: b"[]\n" + content, "is no engine of normscan"),
        (lambda content: content.replace(b'"version"', b'"verzion"'), "is no engine of normscan"),
        (lambda content: content.replace(b"engine-1", b"engine-9", 1), "another magic"),
    ],
)
def test_a_damaged_engine_is_told_and_built_again(
    bundle: Path,
    damage: Callable[[bytes], bytes],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = stored(bundle, lambda wanted: wanted)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=f"{message}.*; build it again with normscan export"):
        EngineFile.read(path)
    monkeypatch.setattr(tensorrt, "_build", lambda *_: b"new")
    engine_for(Bundle.open(bundle), SMALL)
    assert "building it again" in capsys.readouterr().err
    assert EngineFile.read(path).engine == b"new"


def test_an_operator_that_it_does_not_know_is_named(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    model = onnx.load_from_string(opened.model)
    model.graph.node.append(helper.make_node("StringNormalizer", ["x"], ["strange"], name="odd"))
    changed = replace(opened, files={**opened.files, "model.onnx": model.SerializeToString()})
    with pytest.raises(BundleError, match=r"model.onnx: tensorrt-rtx .* does not take node 'odd' \(StringNormalizer\)"):
        engine_for(changed, SMALL)
    assert not cache_folder(opened).exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"library": "openvino"}, "engine 'openvino' is not built ahead; expected tensorrt or tensorrt-rtx"),
        ({"batch": (2, 1, 4)}, "--batch 2 1 4: expected three numbers of 1 or more, ascending"),
        ({"batch": (0, 1, 4)}, "--batch 0 1 4"),
        ({"gpus": ("rtx4090",)}, "--gpu 'rtx4090': expected architectures as in sm86,sm89, or current"),
        ({"gpus": ("current", "sm86")}, "current stands alone"),
    ],
)
def test_wrong_targets_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Target(**given)


def test_an_unknown_architecture_is_told(bundle: Path) -> None:
    with pytest.raises(UsageError, match=r"--gpu sm70: tensorrt-rtx .* has .*sm75, sm80"):
        engine_for(Bundle.open(bundle), replace(SMALL, gpus=("sm70",)))


def test_current_without_a_gpu_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import runtime

    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (Code("cudaErrorNoDevice", 100), 0))
    with pytest.raises(
        UsageError, match=r"--gpu current: found no GPU here \(cudaErrorNoDevice\); name what to build for"
    ):
        engine_for(Bundle.open(bundle), replace(SMALL, gpus=("current",)))


def test_the_gpu_here_is_part_of_the_fingerprint(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import runtime

    for name in (
        "cudaGetDeviceCount",
        "cudaGetDevice",
        "cudaSetDevice",
        "cudaGetDeviceProperties",
        "cudaDriverGetVersion",
    ):
        monkeypatch.setattr(runtime, name, getattr(FakeCuda(), name))
    monkeypatch.setattr(tensorrt, "_build", lambda *_: b"engine")
    path, built = engine_for(Bundle.open(bundle), replace(SMALL, gpus=("current",)))
    assert built.fingerprint.gpus == ("NVIDIA Fake sm89, driver 13000",)
    assert path.name == "fp32-tensorrt-rtx-current.engine"


def test_missing_libraries_are_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"tensorrt is not installed; it comes with: .*normscan\[tensorrt\]"):
        engine_for(Bundle.open(bundle), replace(SMALL, library="tensorrt"))
    monkeypatch.undo()

    def broken(_: str) -> Any:
        raise ImportError("libtensorrt_rtx.so.1: cannot open shared object file")

    monkeypatch.setattr(tensorrt, "import_module", broken)
    with pytest.raises(
        DeviceError, match=r"tensorrt_rtx is installed but cannot be loaded .*cannot open shared object"
    ):
        engine_for(Bundle.open(bundle), SMALL)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)",
            "; close what else uses memory, or give a",
        ),
        ("Error Code 10: Internal Error (Could not find any implementation for node", ""),
    ],
)
def test_a_build_that_fails_says_what_the_library_said(
    bundle: Path, line: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tensorrt.library("tensorrt-rtx")
    real = library.Builder

    class Failing:
        """A builder in all but what it builds."""

        def __init__(self, log: Any) -> None:
            self._log, self._real = log, real(log)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def build_serialized_network(self, *_: Any) -> None:
            self._log.log(library.ILogger.Severity.ERROR, line)

    monkeypatch.setattr(library, "Builder", Failing)
    with pytest.raises(DeviceError) as told:
        engine_for(Bundle.open(bundle), SMALL)
    _, said, after = str(told.value).partition(line)
    assert said
    assert after.startswith(hint)
    assert bool(after) == bool(hint)
    assert not bundle.with_name("ocad.engines").exists()
