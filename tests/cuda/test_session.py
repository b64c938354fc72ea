"""A session whose every hop is on the GPU that is here, against one on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normscan.deploy.gpu_pipeline import GpuPipeline
from normscan.deploy.session import load
from normscan.deploy.tensorrt import MODULES
from normscan.errors import DeviceError

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("library", sorted(MODULES))
def test_it_scores_as_the_cpu(bundle: Path, skin: Path, library: str) -> None:
    """One by one, in batches, in a stream; the later ones from graphs."""
    pytest.importorskip(MODULES[library])
    try:
        session = load(bundle, engine=library)
    except DeviceError as error:
        pytest.skip(str(error))  # as TensorRT-RTX of cards that are none of a workstation
    assert isinstance(session._pipeline, GpuPipeline)
    paths = sorted((skin / "test").rglob("*.png"))
    expected = load(bundle, device="cpu").score(paths)
    streamed = [result for _, result in session.stream(paths * 3, batch_size=4)]
    for found in ([session.score(path) for path in paths], session.score(paths), streamed[-len(paths) :]):
        for one, other in zip(found, expected, strict=True):
            assert abs(one.score - other.score) < 1e-3 * session.spread
            assert one.decision == other.decision
            np.testing.assert_allclose(one.map, other.map, atol=1e-2 * session.spread)
    lane = session._pipeline._idle[0]
    assert lane._graphs, "the engine could not be captured in a CUDA graph"
