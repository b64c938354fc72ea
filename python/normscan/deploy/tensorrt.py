"""TensorRT and TensorRT-RTX: an engine from a bundle's network, for GPUs that need not be here.

Both have one interface, and what only one of them can do is asked of the objects (`hasattr`), not of version numbers.
Networks are strongly typed: precision is what the graph says. TensorRT-RTX is told the architectures to build for and
needs no GPU; TensorRT builds for the GPU that it finds.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from normscan.deploy.bundle import Bundle
from normscan.deploy.engine_file import EngineFile, Fingerprint, cache_folder
from normscan.deploy.engines.device import Gpu, gpu, runtime
from normscan.errors import BundleError, DeviceError, MissingExtraError, OutputError, UsageError
from normscan.progress import Bar, bar, say

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Library -> the module it comes as."""
DEFAULT_GPUS = ("sm80", "sm86", "sm89", "sm120")
"""What TensorRT-RTX builds for where nothing is asked; Turing (sm75) has fewer operators and must be asked for."""
BATCH = (1, 8, 32)
MOST_SAID = 3
"""Lines of the library's log that an error repeats."""


@dataclass(frozen=True)
class Target:
    """What to build."""

    library: str = "tensorrt-rtx"
    gpus: tuple[str, ...] = ()
    """"sm86" and the like, or "current"; empty: what the library takes by itself."""
    batch: tuple[int, int, int] = BATCH

    def __post_init__(self) -> None:
        if self.library not in MODULES:
            raise UsageError(f"engine {self.library!r} is not built ahead; expected {' or '.join(MODULES)}")
        check_batch(self.batch)
        if wrong := [gpu for gpu in self.gpus if not re.fullmatch(r"sm\d{2,3}|current", gpu)]:
            raise UsageError(f"--gpu {wrong[0]!r}: expected architectures as in sm86,sm89, or current")
        if "current" in self.gpus and len(self.gpus) > 1:
            raise UsageError(f"--gpu {','.join(self.gpus)}: current stands alone")


def check_batch(batch: tuple[int, int, int]) -> None:
    """Raise a `UsageError` unless least, usual and largest ascend from 1."""
    least, usual, most = batch
    if not 1 <= least <= usual <= most:
        raise UsageError(f"--batch {least} {usual} {most}: expected three numbers of 1 or more, ascending")


def engine_for(bundle: Bundle, target: Target, *, force: bool = False) -> tuple[Path, EngineFile]:
    """The engine from the cache beside the bundle, built where there is none that fits (or with `force`)."""
    module = library(target.library)
    wanted = _fingerprint(bundle, target, module)
    # One file for each target: what was built for other GPUs or in another precision stays.
    path = cache_folder(bundle) / f"{bundle.precision}-{target.library}-{'+'.join(target.gpus) or 'default'}.engine"
    if path.exists() and not force:
        try:
            found = EngineFile.read(path)
        except BundleError as error:
            say(f"{error}; building it again")
        else:
            if not (changed := found.fingerprint.differences(wanted)):
                return path, found
            say(f"{path} does not fit any more ({changed}); building it again")
    built = EngineFile(wanted, _build(bundle, target, module))
    try:
        built.write(path)
    except OutputError as error:
        raise _NotKeptError(error, built) from error
    return path, built


def engine_on(bundle: Bundle, name: str, place: Gpu) -> EngineFile:
    """An engine of the cache that runs on a GPU which is here, or one that is built for it now."""
    version = library(name).__version__
    for path in sorted(cache_folder(bundle).glob(f"{bundle.precision}-{name}-*.engine")):
        try:
            found = EngineFile.read(path)
        except BundleError as error:
            say(str(error))
            continue
        known = found.fingerprint
        fits = place.architecture in known.gpus or known.gpus == (place.identity,)
        if (known.bundle, known.library, known.version) == (bundle.manifest["sha256"], name, version) and fits:
            return found
    try:
        return engine_for(bundle, Target(name, ("current",)))[1]
    except _NotKeptError as error:
        say(f"{error}; the engine is used, and built again the next time")
        return error.built


class _NotKeptError(OutputError):
    """An engine that was built and could not be written."""

    def __init__(self, error: OutputError, built: EngineFile) -> None:
        super().__init__(str(error))
        self.built = built


def library(name: str) -> Any:
    """The library's own module."""
    module = MODULES[name]
    if find_spec(module) is None:
        raise MissingExtraError(module, name)
    try:
        return import_module(module)
    except (ImportError, OSError) as error:  # bindings without their libraries
        raise DeviceError(f"{module} is installed but cannot be loaded ({error}); install its libraries") from error


def _fingerprint(bundle: Bundle, target: Target, module: Any) -> Fingerprint:
    size = bundle.spec.input
    gpus = target.gpus or (DEFAULT_GPUS if _names_gpus(module) else ("current",))
    return Fingerprint(
        bundle=bundle.manifest["sha256"],
        library=target.library,
        version=module.__version__,
        gpus=_this_gpu(target.library) if gpus == ("current",) else tuple(sorted(gpus, key=lambda sm: int(sm[2:]))),
        batch=target.batch,
        input=(size.channels, size.height, size.width),
    )


def _names_gpus(module: Any) -> bool:
    return hasattr(module.IBuilderConfig, "num_compute_capabilities")


def _this_gpu(name: str) -> tuple[str, ...]:
    """The current GPU."""
    try:
        return (gpu(runtime(name), None, "--gpu current").identity,)
    except UsageError as error:
        other = "" if name == "tensorrt-rtx" else ", with --engine tensorrt-rtx"
        raise UsageError(f"{error}; name what to build for, as in --gpu sm86,sm89{other}") from error


def _build(bundle: Bundle, target: Target, module: Any) -> bytes:
    model = bundle.folder / "model.onnx"
    for_gpus = ", ".join(target.gpus) or "its default GPUs"
    batch = " ".join(str(count) for count in target.batch)
    say(f"building with {target.library} {module.__version__}: {bundle.precision}, batch {batch}, for {for_gpus}")
    log = log_of(module)()
    builder = module.Builder(log)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log)
    if not parser.parse(bundle.model):
        first = parser.get_error(0)
        raise BundleError(
            f"{model}: {target.library} {module.__version__} does not take node {first.node_name()!r} "
            f"({first.node_operator()}): {log.said() or first.desc()}"
        )
    for i in range(network.num_layers):  # attention in float32 has no kernel of its own
        if hasattr(layer := network.get_layer(i), "decomposable"):
            layer.decomposable = True
    config = builder.create_builder_config()
    config.clear_flag(module.BuilderFlag.TF32)  # float32 is float32, as on the CPU
    profile = builder.create_optimization_profile()
    size = bundle.spec.input
    profile.set_shape("x", *((count, size.channels, size.height, size.width) for count in target.batch))
    config.add_optimization_profile(profile)
    _set_gpus(config, target, module)
    with ExitStack() as stack:
        config.progress_monitor = _monitor_of(module)(stack, f"build {target.library}")
        built = builder.build_serialized_network(network, config)
    if built is None:
        raise DeviceError(
            f"{model}: {target.library} {module.__version__} could not build {bundle.precision} for "
            f"{for_gpus}: {log.said() or 'it gave no reason'}{_hint(log)}"
        )
    return bytes(built)


def _set_gpus(config: Any, target: Target, module: Any) -> None:
    if not target.gpus:
        return
    if not _names_gpus(module):
        if target.gpus != ("current",):
            raise UsageError(f"--gpu {','.join(target.gpus)}: {target.library} builds for the GPU here alone (current)")
        return
    known = module.ComputeCapability
    names = [gpu.upper() for gpu in target.gpus]
    if missing := [name for name in names if not hasattr(known, name)]:
        there = ", ".join(n.lower() for n in dir(known) if re.fullmatch(r"SM\d+", n))
        raise UsageError(f"--gpu {missing[0].lower()}: {target.library} {module.__version__} has {there}")
    config.num_compute_capabilities = len(names)
    for i, name in enumerate(names):
        config.set_compute_capability(getattr(known, name), i)


def _hint(log: Any) -> str:
    said = " ".join(log.lines)
    if "SM75" in said and "GEMM" in said:
        return "; Turing has no matrix product in float32 there: --precision fp16 or int8"
    if re.search(r"OutOfMemory|out of memory|bad_alloc", said):
        return "; close what else uses memory, or give a smaller --batch"
    return ""


def log_of(module: Any) -> Any:
    """A class of loggers for the library."""

    class Log(module.ILogger):  # type: ignore[misc]
        """Keeps what goes wrong; a driver that is missing is no error of a build."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= module.ILogger.Severity.ERROR and "catchCudaError" not in text:
                self.lines.append(" ".join(text.split()))

        def said(self) -> str:
            return "; ".join(self.lines[:MOST_SAID])

    return Log


def _monitor_of(module: Any) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """The outermost phase as a bar."""

        def __init__(self, stack: ExitStack, title: str) -> None:
            super().__init__()
            self._stack, self._title = stack, title
            self._phase = ""
            self._bar: Bar | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if not parent and self._bar is None:
                self._phase = name
                self._bar = self._stack.enter_context(bar(self._title, steps, unit="steps"))

        def step_complete(self, name: str, step: int) -> bool:
            if self._bar is not None and name == self._phase:
                self._bar.advance()
            return True

        def phase_finish(self, name: str) -> None:
            if name == self._phase:
                self._stack.close()
                self._bar = None

    return Monitor
