"""Results do not depend on the number of threads, nor on who calls from where.

The file is also the script of the processes it starts: `python test_threads.py fork|spawn` scores in worker processes,
apart from pytest, whose process may hold threads of other libraries that do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from arrays import Array, channels_last, normal, uniform, unwritten
from normscan import _native

Results = tuple[Array, ...]


def _gaussian(dtype: str) -> Results:
    z, mean, whitener = (
        normal(3, 24, 61, 67, dtype=dtype),
        normal(24, dtype=dtype),
        np.tril(normal(24, 24, dtype=dtype)),
    )
    out, grads = unwritten(3, 61, 67, dtype=dtype), [unwritten(*x.shape, dtype=dtype) for x in (z, mean, whitener)]
    _native.gaussian(z, mean, whitener, out)
    _native.gaussian_backward(normal(3, 61, 67, dtype=dtype), z, mean, whitener, *grads)
    likely, likely_grads = unwritten(*out.shape, dtype=dtype), [unwritten(*x.shape, dtype=dtype) for x in grads]
    _native.gaussian(z, mean, whitener, likely, output="nll")
    _native.gaussian_backward(out, z, mean, whitener, *likely_grads, output="nll")
    mixed = unwritten(*out.shape, dtype=dtype)
    _native.gaussian_mixture(z, np.stack([mean, -mean]), np.stack([whitener] * 2), mean[:2].copy(), mixed)
    return (out, *grads, likely, *likely_grads, mixed)


def _gaussian_positions(dtype: str) -> Results:
    z, mean = normal(11, 24, 23, 37, dtype=dtype), normal(24, 23, 37, dtype=dtype)
    whitener, out = normal(23, 37, 24, 24, dtype=dtype), unwritten(11, 23, 37, dtype=dtype)
    _native.gaussian_positions(z, mean, whitener, out)
    mean, scatter = np.zeros((24, 23, 37)), np.zeros((23, 37, 300))
    _native.gaussian_positions_fit(z[:4], 0, mean, scatter)
    _native.gaussian_positions_fit(z[4:], 4, mean, scatter)
    factors = unwritten(23, 37, 300, dtype="float64")
    _native.gaussian_positions_whitener(scatter, factors, count=11, shrinkage=0.1)
    return out, mean, scatter, factors


def _distance(dtype: str, metric: str) -> Results:
    a, b = uniform(3, 5, 61, 67, dtype=dtype), uniform(3, 5, 61, 67, dtype=dtype, seed=1)
    out, grads = unwritten(3, 61, 67, dtype=dtype), [unwritten(*a.shape, dtype=dtype) for _ in "ab"]
    _native.distance(a, b, out, metric=metric)
    _native.distance_backward(normal(3, 61, 67, dtype=dtype), a, b, *grads, metric=metric)
    return (out, *grads)


def _stain(dtype: str) -> Results:
    a, b = uniform(3, 3, 161, 67, dtype=dtype), uniform(3, 3, 161, 67, dtype=dtype, seed=1)
    options = [{"metric": "residual"}, {"metric": "red_ratio"}, {"metric": "red_ratio", "window": 15}]
    found = []
    for chosen in (*options, {"metric": "red_ratio", "window": 75}):
        found.append(unwritten(3, 161, 67, dtype=dtype))
        _native.stain(a, b, found[-1], **chosen)
    return tuple(found)


def _distance_maps(dtype: str) -> Results:
    sides = [(5, 61, 67), (35, 31, 33)]
    levels = [(uniform(3, *s, dtype=dtype, seed=1), uniform(3, *s, dtype=dtype, seed=2)) for s in sides]
    levels.append((channels_last(levels[1][0]), channels_last(levels[1][1])))
    out, score = unwritten(3, 150, 131, dtype=dtype), unwritten(3, dtype=dtype)
    _native.distance_maps(
        levels, out, score, metric="cosine", weights=[1.0] * 3, fuse="product", sigma=2.0, pool="mean"
    )
    return (out, score)


def _attention(dtype: str) -> Results:
    q, k, v = normal(2, 3, 150, 16, dtype=dtype), normal(2, 3, 170, 16, dtype=dtype), normal(2, 3, 170, 8, dtype=dtype)
    out, lse = unwritten(2, 3, 150, 8, dtype=dtype), unwritten(2, 3, 150, dtype=dtype)
    grads = [unwritten(*x.shape, dtype=dtype) for x in (q, k, v)]
    _native.attention(q, k, v, out, lse, scale=0.25)
    _native.attention_backward(normal(2, 3, 150, 8, dtype=dtype), q, k, v, out, lse, *grads, scale=0.25)
    return (out, lse, *grads)


def _attention_bias(dtype: str) -> Results:
    """One head and three parts of the keys."""
    q, k, v = (normal(1, 1, 33 * 34, 8, dtype=dtype, seed=i) for i in range(3))
    bias = normal(1, 65, 67, dtype=dtype)
    out, lse = unwritten(*v.shape, dtype=dtype), unwritten(*v.shape[:3], dtype=dtype)
    *grads, grad_bias = (unwritten(*x.shape, dtype=dtype) for x in (q, k, v, bias))
    options = {"scale": 0.3, "grid": (33, 34)}
    _native.attention(q, k, v, out, lse, bias, **options)
    _native.attention_backward(v, q, k, v, out, lse, *grads, bias, grad_bias, **options)
    return (out, lse, *grads, grad_bias)


def _maps(dtype: str) -> Results:
    map_ = normal(3, 61, 67, dtype=dtype)
    large, smooth = unwritten(3, 150, 131, dtype=dtype), unwritten(*map_.shape, dtype=dtype)
    _native.resample(map_, large)
    _native.smooth(map_, smooth, sigma=2.5)
    pools = []
    for method, parameter in [("mean", 0.0), ("max", 0.0), ("topk", 0.1), ("quantile", 0.9), ("area", 0.5)]:
        pools.append(unwritten(3, dtype=dtype))
        _native.pool(large, pools[-1], method=method, parameter=parameter)
    return (large, smooth, *pools)


def _pictures() -> Results:
    image = np.random.default_rng(0).integers(0, 256, (211, 307, 3), np.uint8)
    out, back = unwritten(3, 130, 140), unwritten(211, 307)
    _native.prepare(image, out, resize="fit", mean=[0.5] * 3, std=[0.25] * 3)
    _native.restore(out[0], back, resize="fit")
    scores, groups, means = normal(5000, dtype="float64"), np.arange(5000) % 7, unwritten(7, dtype="float64")
    _native.aggregate(scores, groups, means, method="mean")
    return (out, back, means)


WORK: dict[str, Callable[[], Results]] = {
    "pictures": _pictures,
    **{f"gaussian {dtype}": lambda dtype=dtype: _gaussian(dtype) for dtype in ("float32", "float64")},
    **{f"positions {dtype}": lambda dtype=dtype: _gaussian_positions(dtype) for dtype in ("float32", "float64")},
    **{f"attention {dtype}": lambda dtype=dtype: _attention(dtype) for dtype in ("float32", "float64")},
    **{f"distance_maps {dtype}": lambda dtype=dtype: _distance_maps(dtype) for dtype in ("float32", "float64")},
    **{f"attention bias {dtype}": lambda dtype=dtype: _attention_bias(dtype) for dtype in ("float32", "float64")},
    **{f"stain {dtype}": lambda dtype=dtype: _stain(dtype) for dtype in ("float32", "float64")},
    **{f"maps {dtype}": lambda dtype=dtype: _maps(dtype) for dtype in ("float32", "float64")},
    **{
        f"distance {metric} {dtype}": lambda metric=metric, dtype=dtype: _distance(dtype, metric)
        for metric in ("l1", "l2", "cosine", "relative_l1", "ssim", "cs")
        for dtype in ("float32", "float64")
    },
}


def assert_same(found: Results, expected: Results) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = _native.threads()
    yield
    _native.set_threads(before)


def test_set_threads_is_read_back() -> None:
    for count in (3, 1, 2):
        _native.set_threads(count)
        assert _native.threads() == count


@pytest.mark.parametrize("work", WORK)
def test_any_number_of_threads_gives_the_same_bits(work: str) -> None:
    _native.set_threads(1)
    expected = WORK[work]()
    assert all(np.isfinite(x).all() for x in expected)
    for count in (2, 3, 8):
        _native.set_threads(count)
        assert_same(WORK[work](), expected)


def test_calls_from_many_python_threads_at_once() -> None:
    names = ["pictures", "gaussian float32", "distance ssim float32", "attention float32", "maps float32"]
    _native.set_threads(2)
    expected = {name: WORK[name]() for name in names}
    with ThreadPoolExecutor(4) as pool:
        futures = [(name, pool.submit(WORK[name])) for name in names * 6]
        for name, future in futures:
            assert_same(future.result(timeout=60), expected[name])


def test_the_number_of_threads_may_change_during_a_call() -> None:
    expected = WORK["attention float32"]()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(WORK["attention float32"]) for _ in range(10)]
        for count in (1, 3, 2, 8, 1, 2):
            _native.set_threads(count)
        for future in futures:
            assert_same(future.result(timeout=60), expected)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(method: str) -> None:
    """As DataLoader workers: the parent has used its threads, then children score too, and the parent goes on."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, __file__, method], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"] * 3


def _child(queue: multiprocessing.Queue[Results]) -> None:
    _native.set_threads(2)
    queue.put(WORK["gaussian float32"]())


def _main(method: str) -> None:
    context = multiprocessing.get_context(method)
    _native.set_threads(2)
    expected = WORK["gaussian float32"]()
    queue = context.Queue()
    children = [context.Process(target=_child, args=(queue,), daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    found = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0, f"a child ended with {child.exitcode}"
    for results in (*found, WORK["gaussian float32"]()):
        assert_same(results, expected)
        print("same")


if __name__ == "__main__":
    assert Path(__file__).name == "test_threads.py"
    _main(sys.argv[1])
