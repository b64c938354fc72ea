"""Where the CUDA kernels run: on a GPU if there is one, and as C++ on the CPU (tests/cuda_emulation) if that was built.

cmake -S . -B build/emulation -G Ninja -DNORMSCAN_CUDA_EMULATION=ON -Dpybind11_DIR=$(python -m pybind11 --cmakedir)
cmake --build build/emulation && NORMSCAN_CUDA_EMULATION=build/emulation/cuda_emulation pytest tests/cuda
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Gpu:
    """A stream and the way to its memory: `ops.gaussian(put(z), ..., out)`, then `get(out)`."""

    module: Any
    ops: Any
    emulated: bool

    def put(self, array: np.ndarray) -> Any:
        """The array in the GPU's memory with the same strides (without negative ones, which torch has not)."""
        if self.emulated:
            return array
        import torch

        item = array.itemsize
        strides = [s // item if n > 1 else 1 for n, s in zip(array.shape, array.strides, strict=True)]
        if min(strides, default=0) < 0:
            return torch.from_numpy(np.ascontiguousarray(array)).cuda()
        there = torch.empty_strided(array.shape, strides, dtype=torch.from_numpy(array[:0].copy()).dtype, device="cuda")
        return there.copy_(torch.from_numpy(np.ascontiguousarray(array)))

    def call(self, op: str, *arrays: Any, **options: Any) -> None:
        """An op, with the workspace that it asks for: filled with 0xff (NaN), and not a byte larger."""
        if hasattr(self.ops, f"{op}_workspace"):
            size = getattr(self.ops, f"{op}_workspace")(*arrays, **options)
            options["workspace"] = self.put(np.full(size, 0xFF, np.uint8))
        getattr(self.ops, op)(*arrays, **options)

    def get(self, array: Any) -> np.ndarray:
        """Back in the CPU's memory."""
        return array if self.emulated else array.cpu().numpy()


def _emulation() -> Gpu:
    folder = os.environ.get("NORMSCAN_CUDA_EMULATION")
    if not folder:
        pytest.skip("NORMSCAN_CUDA_EMULATION names no build of the emulated kernels (tests/cuda/conftest.py)")
    if "normscan._cuda_emulated" not in sys.modules:
        (path,) = Path(folder).glob("_cuda*.so")
        spec = importlib.util.spec_from_file_location("normscan._cuda", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["normscan._cuda_emulated"] = module
    module = sys.modules["normscan._cuda_emulated"]
    return Gpu(module, module.Stream(0), emulated=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `cuda` needs a GPU that torch can use."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked or _gpu_is_there():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _gpu_is_there() -> bool:
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def _device() -> Gpu:
    import torch

    from normscan import _cuda

    stream = _cuda.Stream(torch.cuda.current_stream().cuda_stream, device=torch.cuda.current_device())
    return Gpu(_cuda, stream, emulated=False)


@pytest.fixture(params=["emulated", pytest.param("device", marks=pytest.mark.cuda)])
def gpu(request: pytest.FixtureRequest) -> Gpu:
    """The emulated kernels, and those of the GPU."""
    return _emulation() if request.param == "emulated" else _device()
