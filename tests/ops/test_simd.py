"""Every SIMD level that this processor runs agrees with the reference.

The level is chosen once per process, so the file is also the script of the processes it starts: `python test_simd.py`
checks one set of cases with whatever level NORMSCAN_CPU_ISA forces, and prints the level. The 16-bit types have a
script of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arrays import FLOATS, LAYOUTS, normal, uniform, unwritten
from normscan import _native
from reference import attention as reference_attention
from reference import distance as reference_distance
from reference import distance_maps as reference_distance_maps
from reference import gaussian as reference_gaussian
from reference import pool as reference_pool
from reference import prepare as reference_prepare
from reference import resample as reference_resample
from reference import smooth as reference_smooth
from reference import stain as reference_stain
from tolerances import assert_close

OUTPUTS = ("squared_distance", "saturated", "nll")
LEVELS = ("baseline", "avx2", "avx512")


SCRIPTS = tuple(Path(__file__).with_name(name) for name in ("test_simd.py", "test_attention_half.py"))


def _start(level: str, script: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "NORMSCAN_CPU_ISA": level,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_level_in_use_is_one_that_can_run() -> None:
    levels = _native.simd_levels()
    assert levels[0] == "baseline"
    assert levels == [level for level in LEVELS if level in levels]
    assert _native.simd_level() == os.environ.get("NORMSCAN_CPU_ISA", levels[-1])


def test_the_build_tells_what_it_is() -> None:
    info = _native.build_info()
    assert {"version", "compiler", "cuda"} <= set(info)
    assert all(isinstance(value, str) and value for value in info.values())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_agrees_with_the_reference(level: str, script: Path) -> None:
    if level not in _native.simd_levels():
        pytest.skip(f"this processor cannot run {level}")
    done = _start(level, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [level]


def test_an_unknown_level_is_an_error() -> None:
    """No silent second way: a misspelt level must not run whatever the processor offers."""
    done = _start("avx3", SCRIPTS[0])
    assert done.returncode != 0
    assert "NORMSCAN_CPU_ISA" in done.stderr
    assert "avx3" in done.stderr


def check_gaussian(dtype: str, channels: int) -> None:
    """Channels around every vector length: the rest loop, one vector, several."""
    for form in (
        normal(1, dtype=dtype),
        normal(channels, dtype=dtype),
        np.tril(normal(channels, channels, dtype=dtype)),
    ):
        for place in LAYOUTS.values():
            z, mean, grad_out = (
                normal(2, channels, 3, 19, dtype=dtype),
                normal(channels, dtype=dtype),
                normal(2, 3, 19, dtype=dtype),
            )
            out, grads = unwritten(2, 3, 19, dtype=dtype), [unwritten(*x.shape, dtype=dtype) for x in (z, mean, form)]
            for output in OUTPUTS:
                _native.gaussian(place(z), mean, form, out, output=output, saturation=channels)
                _native.gaussian_backward(grad_out, place(z), mean, form, *grads, output=output, saturation=channels)
                arguments, options = (z, mean, form), {"output": output, "saturation": channels}
                assert_close(out, reference_gaussian.gaussian(*arguments, **options), "gaussian")
                expected = reference_gaussian.gaussian_backward(grad_out, *arguments, **options)
                for found, want in zip(grads, expected, strict=True):
                    assert_close(found, want, "gaussian_backward")


def check_gaussian_mixture(dtype: str, channels: int) -> None:
    means, log_weights = normal(3, channels, dtype=dtype, seed=1), normal(3, dtype=dtype, seed=2)
    for whiteners in (
        normal(3, 1, dtype=dtype),
        normal(3, channels, dtype=dtype),
        np.tril(normal(3, channels, channels, dtype=dtype)),
    ):
        for place in LAYOUTS.values():
            z, out = normal(2, channels, 3, 29, dtype=dtype), unwritten(2, 3, 29, dtype=dtype)
            _native.gaussian_mixture(place(z), means, whiteners, log_weights, out)
            expected = reference_gaussian.gaussian_mixture(z, means, whiteners, log_weights)
            assert_close(out, expected, "gaussian_mixture")


def check_gaussian_positions(dtype: str, channels: int) -> None:
    """1, 8 and 11 images: a part of the lanes, all of them, and a second group."""
    for images in (1, 8, 11):
        z, mean = normal(images, channels, 3, 19, dtype=dtype), normal(channels, 3, 19, dtype=dtype, seed=1)
        full = np.tril(normal(3, 19, channels, channels, dtype=dtype, seed=2))
        packed = np.ascontiguousarray(full[(..., *np.tril_indices(channels))])
        for output in OUTPUTS:
            options = {"output": output, "saturation": channels}
            expected = reference_gaussian.gaussian_positions(z, mean, full, **options)
            for whitener in (full, packed):
                for place in LAYOUTS.values():
                    out = unwritten(images, 3, 19, dtype=dtype)
                    _native.gaussian_positions(place(z), mean, whitener, out, **options)
                    assert_close(out, expected, "gaussian_positions")


def check_gaussian_positions_fit(dtype: str, channels: int) -> None:
    z = normal(11, channels, 3, 5, dtype=dtype)
    mean, covariances, whiteners = reference_gaussian.gaussian_positions_fit(z, 0.1)
    found = np.zeros((channels, 3, 5)), np.zeros((3, 5, channels * (channels + 1) // 2))
    for first, last in ((0, 1), (1, 4), (4, 11)):
        _native.gaussian_positions_fit(z[first:last], first, *found)
    factors = unwritten(*found[1].shape, dtype="float64")
    _native.gaussian_positions_whitener(found[1], factors, count=11, shrinkage=0.1)
    for one, other in zip((*found, factors), (mean, 10 * covariances, whiteners), strict=True):
        expected = other if other.ndim == 3 else other[(..., *np.tril_indices(channels))]
        assert_close(one, expected, "gaussian_positions_fit")


def check_distance(dtype: str, metric: str) -> None:
    op = "distance_ssim" if metric in reference_distance.WINDOWED else "distance"
    for channels, width in ((19, 1), (3, 7), (19, 16), (83, 37)):
        for place in LAYOUTS.values():
            a, b = (uniform(2, channels, 12, width, dtype=dtype, seed=seed) for seed in (0, 1))
            grad_out = normal(2, 12, width, dtype=dtype)
            out, grads = unwritten(2, 12, width, dtype=dtype), [unwritten(*a.shape, dtype=dtype) for _ in "ab"]
            _native.distance(place(a), place(b), out, metric=metric)
            _native.distance_backward(grad_out, place(a), place(b), *grads, metric=metric)
            assert_close(out, reference_distance.distance(a, b, metric=metric), op)
            expected = reference_distance.distance_backward(grad_out, a, b, metric=metric)
            for found, want in zip(grads, expected, strict=True):
                assert_close(found, want, f"{op}_backward")


def check_stain(dtype: str, width: int) -> None:
    """Colours of 8 bits too: some lie on the ends of what is red."""
    for levels in (0, 15, 255):
        a, b = (uniform(2, 3, 40, width, dtype=dtype, seed=seed) for seed in (0, 1))
        if levels > 0:
            a, b = (np.round(x * levels) / x.dtype.type(levels) for x in (a, b))
        for options in ({"metric": "residual", "cut": 0.2}, {"metric": "red_ratio", "least_saturation": 0.4}):
            for window in (None, 7) if options["metric"] == "red_ratio" else (None,):
                for place in LAYOUTS.values():
                    out = unwritten(2, 40, width, dtype=dtype)
                    _native.stain(place(a), place(b), out, window=window, **options)
                    assert_close(out, reference_stain.stain(a, b, window=window, **options), "stain")


def check_distance_maps(dtype: str, metric: str) -> None:
    op = "distance_maps_ssim" if metric in reference_distance.WINDOWED else "distance_maps"
    for width in (1, 7, 16, 37):
        levels = [tuple(uniform(2, 9, 12, width, dtype=dtype, seed=s) for s in (0, 1))]
        levels.append(tuple(uniform(2, 20, 5, 9, dtype=dtype, seed=s) for s in (2, 3)))
        for fuse in ("sum", "product"):
            out, score = unwritten(2, 24, 2 * width, dtype=dtype), unwritten(2, dtype=dtype)
            options = {"metric": metric, "weights": [1.0, 1.0], "fuse": fuse, "sigma": 1.2}
            _native.distance_maps(levels, out, score, pool="mean", **options)
            size = (24, 2 * width)
            expected = reference_distance_maps.distance_maps(levels, size=size, pool_method="mean", **options)
            for found, want in zip((out, score), expected, strict=True):
                assert_close(found, want, op)


def check_attention(dtype: str, size: int) -> None:
    q, k, v = (normal(2, 2, length, size, dtype=dtype, seed=length) for length in (37, 71, 71))
    grad_out = normal(2, 2, 37, size, dtype=dtype)
    out, lse = unwritten(2, 2, 37, size, dtype=dtype), unwritten(2, 2, 37, dtype=dtype)
    grads = [unwritten(*x.shape, dtype=dtype) for x in (q, k, v)]
    _native.attention(q, k, v, out, lse, scale=size**-0.5)
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, scale=size**-0.5)
    for found, want in zip((out, lse), reference_attention.attention(q, k, v, scale=size**-0.5), strict=True):
        assert_close(found, want, "attention")
    expected = reference_attention.attention_backward(grad_out, q, k, v, scale=size**-0.5)
    for found, want in zip(grads, expected, strict=True):
        assert_close(found, want, "attention_backward")


def check_attention_bias(dtype: str, size: int) -> None:
    grid, scale = (5, 15), size**-0.5
    q, k, v, grad_out = (normal(2, 2, 75, size, dtype=dtype, seed=i) for i in range(4))
    bias = normal(2, 9, 29, dtype=dtype)
    out, lse = unwritten(*v.shape, dtype=dtype), unwritten(*v.shape[:3], dtype=dtype)
    *grads, grad_bias = (unwritten(*x.shape, dtype=dtype) for x in (q, k, v, bias))
    _native.attention(q, k, v, out, lse, bias, scale=scale, grid=grid)
    _native.attention_backward(grad_out, q, k, v, out, lse, *grads, bias, grad_bias, scale=scale, grid=grid)
    expected = reference_attention.attention(q, k, v, scale=scale, bias=bias, grid=grid)
    for found, want in zip((out, lse), expected, strict=True):
        assert_close(found, want, "attention")
    expected = reference_attention.attention_backward(grad_out, q, k, v, scale=scale, bias=bias, grid=grid)
    for found, want in zip((*grads, grad_bias), expected, strict=True):
        assert_close(found, want, "attention_backward")


def check_attention_gate(dtype: str, size: int) -> None:
    q, k, v, residual, grad_out = (normal(2, 2, 70, size, dtype=dtype, seed=i) for i in range(5))
    gamma, options = np.array([0.7], dtype), {"scale": size**-0.5}
    out, attended, lse = (unwritten(*x.shape, dtype=dtype) for x in (v, v, v[..., 0]))
    *grads, grad_gamma = (unwritten(*x.shape, dtype=dtype) for x in (q, k, v, gamma))
    _native.attention(q, k, v, out, lse, None, residual, gamma, attended, **options)
    _native.attention_backward(grad_out, q, k, v, attended, lse, *grads, gamma=gamma, grad_gamma=grad_gamma, **options)
    alone, _ = reference_attention.attention(q, k, v, **options)
    assert_close(attended, alone, "attention")
    assert_close(out, residual + 0.7 * alone, "attention")
    expected = reference_attention.attention_backward(0.7 * grad_out.astype(np.float64), q, k, v, **options)
    for found, want in zip(grads, expected, strict=True):
        assert_close(found, want, "attention_backward")
    products = grad_out * alone
    assert_close(grad_gamma, [products.sum()], "attention_backward", np.abs(products).sum())


def check_maps(dtype: str, width: int) -> None:
    map_ = normal(2, 19, width, dtype=dtype)
    out, large = unwritten(*map_.shape, dtype=dtype), unwritten(2, 30, 41, dtype=dtype)
    _native.smooth(map_, out, sigma=1.7)
    assert_close(out, reference_smooth.smooth(map_, sigma=1.7), "smooth")
    _native.resample(map_, large)
    assert_close(large, reference_resample.resample(map_, (30, 41)), "resample")
    for method, parameter in (("mean", 0.0), ("max", 0.0), ("topk", 0.05), ("quantile", 0.9), ("area", 0.5)):
        pooled = unwritten(2, dtype=dtype)
        _native.pool(map_, pooled, method=method, parameter=parameter)
        assert_close(pooled, reference_pool.pool(map_, method=method, parameter=parameter), "pool")


def check_pictures(dtype: str, resize: str) -> None:
    image = (uniform(37, 53, 3) * (255 if dtype == "uint8" else 65535 if dtype == "uint16" else 1)).astype(dtype)
    out, back = unwritten(3, 32, 40), unwritten(37, 53)
    options = {"resize": resize, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    _native.prepare(image, out, **options)
    assert_close(out, reference_prepare.prepare(image, (32, 40), **options), "prepare")
    _native.restore(out[0], back, resize=resize)
    assert_close(back, reference_prepare.restore(out[0], (37, 53), resize=resize), "restore")


def _main() -> None:
    for dtype in FLOATS:
        for channels in (1, 7, 8, 16, 19, 33):
            check_gaussian(dtype, channels)
            check_gaussian_mixture(dtype, channels)
            check_gaussian_positions(dtype, channels)
            check_gaussian_positions_fit(dtype, channels)
            check_attention(dtype, channels)
            check_attention_bias(dtype, channels)
            check_attention_gate(dtype, channels)
        for metric in reference_distance.METRICS:
            check_distance(dtype, metric)
            check_distance_maps(dtype, metric)
        for width in (1, 7, 16, 37):
            check_maps(dtype, width)
            check_stain(dtype, width)
    for dtype in ("uint8", "uint16", "float32"):
        for resize in reference_prepare.RESIZES:
            check_pictures(dtype, resize)
    print(_native.simd_level())


if __name__ == "__main__":
    _main()
