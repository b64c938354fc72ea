"""A session whose hops are all on a GPU, over one that is not there: what is copied where, in which order, how often.

What the kernels compute is in tests/cuda.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import fake_gpu
from fake_gpu import FakeCore, FakeCuda
from normscan.deploy import gpu_pipeline
from normscan.deploy import session as session_module
from normscan.deploy.gpu_pipeline import PLANS, GpuPipeline
from normscan.deploy.pipeline import HostPipeline
from normscan.deploy.session import Session, load
from normscan.errors import DeviceError
from normscan.scoring.spec import ScoringSpec

RNG = np.random.default_rng(0)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A GPU, and a native core that was built for one."""
    cuda = fake_gpu.installed(monkeypatch)
    core = FakeCore(cuda)
    monkeypatch.setattr(gpu_pipeline, "_core", lambda: core)
    monkeypatch.setattr(session_module, "find_spec", lambda _: True)
    return cuda


@pytest.fixture
def session(bundle: Path, cuda: FakeCuda) -> Session:
    fake_gpu.placed(bundle, "sm89")
    session = load(bundle, engine="tensorrt-rtx")
    assert isinstance(session._pipeline, GpuPipeline)
    return session


def pictures(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [RNG.integers(0, 256, shape, np.uint8) for shape in shapes]


def check(session: Session, bundle: Path, given: list[np.ndarray]) -> None:
    """The same as all on the host."""
    for ours, theirs in zip(session.score(given), load(bundle).score(given), strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-4)
        assert ours.decision == theirs.decision
        assert ours.terms == pytest.approx(theirs.terms, rel=1e-4)
        np.testing.assert_allclose(ours.map, theirs.map, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_it_is_what_the_host_gives(session: Session, bundle: Path, count: int) -> None:
    """Fewer than the engine's least batch are filled up, more than its largest go in parts."""
    check(session, bundle, pictures(*[(40, 56, 3), (56, 40), (17, 90, 3)][:count], *[(33, 33, 3)] * (count - 3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_kind_of_pixel(session: Session, bundle: Path, dtype: type) -> None:
    pixels = RNG.uniform(size=(40, 50, 3)) * (1 if dtype is np.float32 else np.iinfo(dtype).max)
    for given in (pixels, pixels[::-1, ::2], pixels[..., 0]):
        check(session, bundle, [given.astype(dtype)])


def test_a_batch_like_one_before_is_replayed(session: Session, bundle: Path, cuda: FakeCuda) -> None:
    """The first runs, the second is captured and launched, the others are launched: of new pixels each time."""
    for i in range(4):
        check(session, bundle, pictures((40, 56, 3), (56, 40)))
        assert cuda.launched == i
    before = len(cuda.library.batches)
    check(session, bundle, pictures((40, 56, 3), (56, 40)))
    assert len(cuda.library.batches) == before  # replayed: the engine was not called


def test_a_session_that_is_warm_replays_what_it_is_given_first(session: Session, cuda: FakeCuda) -> None:
    session.warm_up(2)
    size = session.scorer.spec.input
    launched, called = cuda.launched, len(cuda.library.batches)
    session.score(pictures(*[(size.height, size.width, 3)] * 2))
    assert (cuda.launched, len(cuda.library.batches)) == (launched + 1, called)


def test_graphs_do_not_outlive_the_shape_of_their_context(session: Session, bundle: Path, cuda: FakeCuda) -> None:
    for _ in range(3):
        check(session, bundle, pictures((40, 40, 3), (40, 40, 3)))
    assert len(cuda.graphs) == 1
    check(session, bundle, pictures(*[(40, 40, 3)] * 3))
    assert cuda.graphs == {}
    for _ in range(3):
        check(session, bundle, pictures((40, 40, 3), (40, 40, 3)))
    assert len(cuda.graphs) == 1


def test_graphs_do_not_outlive_their_memory(session: Session, bundle: Path, cuda: FakeCuda) -> None:
    """Larger pictures need more room, which lies elsewhere."""
    for _ in range(3):
        check(session, bundle, pictures((40, 40, 3)))
    check(session, bundle, pictures((300, 300, 3)))
    assert cuda.graphs == {}
    check(session, bundle, pictures((40, 40, 3)))


def test_an_engine_that_cannot_be_captured_just_runs(session: Session, bundle: Path, cuda: FakeCuda) -> None:
    cuda.fails.add("capture prepare")
    for _ in range(4):
        check(session, bundle, pictures((40, 40, 3)))
    assert cuda.launched == 0


def test_memory_does_not_grow_with_kinds_of_batches(session: Session, cuda: FakeCuda) -> None:
    session.score(pictures((80, 80, 3)))
    buffers = len(cuda.memory), len(cuda.host)
    for side in range(PLANS + 5):
        for _ in range(3):
            session.score(pictures((30 + side, 40, 3)))
    assert (len(cuda.memory), len(cuda.host)) == buffers
    assert len(cuda.graphs) <= PLANS


def test_a_stream_has_two_batches_under_way(bundle: Path, session: Session, cuda: FakeCuda, skin: Path) -> None:
    """In order, with errors in their places; a lane each."""
    paths = sorted((skin / "test").rglob("*.png"))
    paths.insert(3, bundle / "manifest.json")
    found = list(session.stream(paths, batch_size=3))
    expected = list(load(bundle).stream(paths, batch_size=3))
    assert [path for path, _ in found] == [path for path, _ in expected] == paths
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        assert type(ours) is type(theirs)
        if not isinstance(ours, Exception) and not isinstance(theirs, Exception):
            assert ours.score == pytest.approx(theirs.score, rel=1e-4)
    assert len(cuda.streams) == 1 + 2  # of the engine and of each lane
    assert session.hops.pictures == len(paths) - 1


def test_streams_that_are_left_or_nested_keep_no_lane(session: Session, cuda: FakeCuda, skin: Path) -> None:
    paths = sorted((skin / "test").rglob("*.png"))
    first, second = session.stream(paths, batch_size=2), session.stream(paths, batch_size=2)
    next(first), next(second)
    assert session.score(pictures((40, 40, 3)))[0].score > 0
    del first, second
    gc.collect()
    lanes = len(cuda.streams)
    for _ in range(3):
        assert len(list(session.stream(paths, batch_size=2))) == len(paths)
    assert len(cuda.streams) == lanes


def test_a_lane_that_failed_is_not_used_again(session: Session, bundle: Path, cuda: FakeCuda) -> None:
    check(session, bundle, pictures((40, 40, 3)))
    cuda.fails.add("execute")
    with pytest.raises(DeviceError, match=r"tensorrt-rtx 1\.7\.fake failed on x \[2, 3"):
        session.score(pictures((50, 40, 3)))
    cuda.fails.clear()
    check(session, bundle, pictures((50, 40, 3)))


def test_memory_that_is_not_to_be_had_is_told(session: Session, cuda: FakeCuda) -> None:
    cuda.fails.add("cudaMalloc")
    with pytest.raises(
        DeviceError, match=r"statistics latent\.\w+: 0\.0 MiB are not to be had; use a smaller batch \(cudaMalloc"
    ):
        session.score(pictures((40, 40, 3)))


def test_all_is_given_back(bundle: Path, cuda: FakeCuda) -> None:
    fake_gpu.placed(bundle, "sm89")
    session = load(bundle, engine="tensorrt-rtx")
    for _ in range(3):
        session.score(pictures((40, 40, 3)))
    assert cuda.memory
    assert cuda.host
    assert cuda.graphs
    del session
    gc.collect()
    assert (cuda.memory, cuda.host, cuda.graphs, cuda.streams) == ({}, {}, {}, set())


def test_a_core_without_cuda_scores_on_the_host(bundle: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "find_spec", lambda _: None)
    fake_gpu.placed(bundle, "sm89")
    session = load(bundle, engine="tensorrt-rtx")
    assert isinstance(session._pipeline, HostPipeline)
    check(session, bundle, pictures((40, 40, 3)))


def test_a_core_that_finds_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_pipeline, "import_module", lambda _: FakeCore(FakeCuda(gpus=0)))
    with pytest.raises(DeviceError, match="the native core finds no GPU: no driver"):
        gpu_pipeline._core()


def test_the_map_has_the_shape_that_the_spec_says(session: Session) -> None:
    spec: ScoringSpec = session.scorer.spec
    assert spec.map_shape == (spec.input.height, spec.input.width)
