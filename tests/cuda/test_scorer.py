"""The scorer on the GPU against the one on the CPU and against float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrays import LAYOUTS, normal, uniform, unwritten
from normscan.errors import ArgumentError, ConfigError
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from reference import scorer as reference
from specs import L1, LATENT, LEVELS, SPECS, SSIM, VALUE, at_image, outputs_of, spec_of, stats_of
from tolerances import assert_close

POOLS = ("mean", "max", {"topk": 0.1}, {"quantile": 0.9}, {"area": 0.5})
POINTWISE = [LEVELS[0] | {"metric": metric} for metric in ("l1", "l2", "cosine", "relative_l1")]
NAMES = ("maps", "terms", "scores")
FEW = (
    "ocad",
    "stfpm",
    "a vector times a map",
    "positions and a vector",
    "a mixture",
    "values that are a map, and a probability",
    "a stain and its red pixels",
)
"""Specs that have every kind of term, and both ways to fuse and to pool."""


def fused(terms, fuse, **fields):
    """Only a map has a product."""
    return spec_of(*terms, **fields) if fuse == "sum" else at_image(*terms, fuse=fuse, **fields)


def names_of(spec):
    return sorted({name for term in spec["terms"] for name in term["of"]})


def results_of(spec, images, place=np.asarray):
    size = spec["map"]["size"] if isinstance(spec.get("map", {}).get("size"), list) else [24, 32]
    terms = len(spec["terms"])
    shapes = ((images, *size), "float32"), ((images, terms), "float64"), ((images,), "float64")
    return [place(unwritten(*shape, dtype=dtype)) for shape, dtype in shapes]


def prepared(gpu, spec, stats=None):
    """The scorer, and its statistics in the GPU's memory."""
    scorer = gpu.module.Scorer(json.dumps(spec), stats_of() if stats is None else stats)
    return scorer, {name: gpu.put(value) for name, value in scorer.statistics().items()}


def run(gpu, spec, outputs, place=np.asarray, stats=None):
    scorer, statistics = prepared(gpu, spec, stats)
    there = {name: gpu.put(place(outputs[name])) for name in names_of(spec)}
    results = [gpu.put(x) for x in results_of(spec, len(outputs[names_of(spec)[0]]), place)]
    size = gpu.ops.score_workspace(scorer, there)
    gpu.ops.score(scorer, statistics, there, *results, workspace=gpu.put(np.full(size, 0xFF, np.uint8)))
    return [gpu.get(x) for x in results]


def on_the_cpu(spec, outputs):
    found = Scorer(ScoringSpec.from_json(json.dumps(spec)), stats_of()).score(outputs)
    return [found.maps, found.terms, found.scores]


def check(gpu, spec, outputs, place=np.asarray):
    """One call against the CPU, and against float64."""
    found = run(gpu, spec, outputs, place)
    truth = reference.score(spec, stats_of(), outputs)
    for expected in (on_the_cpu(spec, outputs), truth):
        for name, one, other in zip(NAMES, found, expected, strict=True):
            assert_close(one, other, f"scorer_{name}")
    return found


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("name", SPECS)
def test_every_spec(gpu, name, images):
    check(gpu, SPECS[name], outputs_of(images))


@pytest.mark.parametrize("name", FEW)
def test_an_empty_batch(gpu, name):
    maps, terms, scores = run(gpu, SPECS[name], outputs_of(0))
    assert (len(maps), len(terms), len(scores)) == (0, 0, 0)


@pytest.mark.parametrize("fuse", ["sum", "product"])
@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_distances_of_every_metric(gpu, fuse, sigma):
    terms = [*POINTWISE, SSIM | {"weight": 1}, SSIM | {"metric": "cs", "window": 5, "weight": 1}]
    check(gpu, fused(terms, fuse, map={"size": "input", "blur_sigma": sigma}), outputs_of(2))


@pytest.mark.parametrize(("form", "shape"), [("full", (6, 6)), ("diagonal", (6,)), ("isotropic", (1,))])
@pytest.mark.parametrize("per", ["vector", "position_shared"])
def test_gaussians_of_every_form(gpu, per, form, shape):
    spec = spec_of(LATENT | {"form": form, "per": per})
    outputs = {"latent": normal(3, 6) if per == "vector" else normal(3, 6, 5, 7)}
    stats = {"latent.mean": normal(6, seed=1), "latent.whitener": 0.5 + uniform(*shape, seed=2)}
    stats["latent.whitener"] = np.tril(stats["latent.whitener"]) if form == "full" else stats["latent.whitener"]
    expected = reference.score(spec, stats, outputs)
    for name, one, other in zip(NAMES, run(gpu, spec, outputs, stats=stats), expected, strict=True):
        assert_close(one, other, f"scorer_{name}")


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_every_pooling(gpu, pool):
    check(gpu, spec_of(*({**term, "pool": pool} for term in (*LEVELS, VALUE, LATENT))), outputs_of(2))
    check(gpu, at_image(*LEVELS, pool=pool), outputs_of(2))


@pytest.mark.parametrize("count", [8, 9, 17])
@pytest.mark.parametrize("fuse", ["sum", "product"])
def test_more_terms_than_maps_that_are_fused_at_once(gpu, fuse, count):
    terms = [VALUE | {"scale": 0.7 + 0.1 * i} for i in range(count)]
    spec = fused(terms, fuse, map={"size": [7, 5], "blur_sigma": 0.0})
    check(gpu, spec, {"values": normal(2, 1, 7, 5)})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["ocad", "stfpm", "a vector", "padim", "values that are a map, and a probability"])
def test_layouts(gpu, name, layout):
    expected = run(gpu, SPECS[name], outputs_of(3))
    found = check(gpu, SPECS[name], outputs_of(3), LAYOUTS[layout])
    for which, one, other in zip(NAMES, found, expected, strict=True):
        assert_close(one, other, f"scorer_{which}")


def test_layouts_of_a_value(gpu):
    """One channel: any step between its columns, and none, are in order."""
    spec, outputs = spec_of(VALUE, map={"size": [9, 11], "blur_sigma": 0.0}), {"values": normal(2, 1, 9, 11)}
    wide = unwritten(2, 1, 9, 22)
    wide[..., ::2] = outputs["values"]
    equal(run(gpu, spec, {"values": wide[..., ::2]}), run(gpu, spec, outputs))
    same = np.broadcast_to(normal(2, 1, 1, 1), (2, 1, 9, 11))
    if gpu.emulated:  # torch has no such copy
        equal(run(gpu, spec, {"values": same}), run(gpu, spec, {"values": same.copy()}))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    sigma=st.sampled_from([0.0, 0.7, 3.0]),
    pool=st.sampled_from(POOLS),
    how=st.sampled_from(["terms", "sum", "product"]),
)
def test_any_shapes(gpu, images, sides, size, sigma, pool, how):
    fields = {"map": {"size": list(size), "blur_sigma": sigma}}
    if how == "terms":
        spec = spec_of(L1, VALUE | {"pool": pool}, **fields)
    else:
        spec = at_image(L1 | {"weight": 1}, VALUE, fuse=how, pool=pool, **fields)
    outputs = {name: uniform(images, 3, *sides, seed=i) for i, name in enumerate(("image", "reconstruction"))}
    check(gpu, spec, outputs | {"values": uniform(images, 1, *size, seed=2)})


@pytest.mark.parametrize("name", FEW)
def test_a_batch_is_its_images_one_by_one(gpu, name):
    outputs = outputs_of(3)
    together = run(gpu, SPECS[name], outputs)
    for n in range(3):
        alone = run(gpu, SPECS[name], {key: value[n : n + 1] for key, value in outputs.items()})
        equal(alone, [x[n : n + 1] for x in together])


BROKEN = [(name, key, np.nan) for name in FEW for key in names_of(SPECS[name])]


@pytest.mark.parametrize(("name", "broken", "value"), [*BROKEN, ("ocad", "image", np.inf), ("ocad", "latent", -np.inf)])
def test_a_value_that_is_not_finite_makes_the_score_nan(gpu, name, broken, value):
    """Of its own picture and of no other; a term is NaN where one of its own outputs is not finite."""
    outputs = outputs_of(3)
    expected = run(gpu, SPECS[name], outputs)
    outputs[broken].reshape(3, -1)[1, -1] = value
    maps, terms, scores = run(gpu, SPECS[name], outputs)
    assert np.isnan(scores[1])
    equal([x[[0, 2]] for x in (maps, terms, scores)], [x[[0, 2]] for x in expected])
    reads = [broken in term["of"] for term in SPECS[name]["terms"]]
    np.testing.assert_array_equal(np.isnan(terms[1]), reads)
    np.testing.assert_array_equal(terms[1, ~np.array(reads)], expected[1][1, ~np.array(reads)])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last_strided"])
@pytest.mark.parametrize("at", [0, 4095, 4096, 9999, 16383])
def test_what_is_not_finite_is_found_in_every_part(gpu, layout, at):
    """Even between the pixels that the fused map looks at, and where the terms after it are in order."""
    spec = at_image(L1, VALUE, map={"size": [2, 2], "blur_sigma": 0.0})
    outputs = {name: uniform(2, 4, 64, 64, seed=i) for i, name in enumerate(("image", "reconstruction"))}
    outputs |= {"values": normal(2, 1, 9, 11)}
    outputs["image"][1].reshape(-1)[at] = np.nan
    maps, terms, scores = run(gpu, spec, outputs, LAYOUTS[layout])
    assert np.isfinite(maps).all()
    np.testing.assert_array_equal(np.isnan(terms), [[False, False], [True, False]])
    np.testing.assert_array_equal(np.isnan(scores), [False, True])


def test_finite_outputs_whose_sum_is_not(gpu):
    outputs = {"values": np.full((1, 1, 9, 11), 3e38, np.float32)}
    for spec in (spec_of(VALUE | {"scale": 1e-300}), at_image(VALUE, VALUE, pool="max")):
        assert np.isnan(run(gpu, spec, outputs)[2]).all()
        assert np.isnan(on_the_cpu(spec, outputs)[2]).all()


def test_outputs_and_statistics_that_nobody_reads_are_left_alone(gpu):
    scorer, statistics = prepared(gpu, SPECS["ocad"])
    there = {name: gpu.put(value) for name, value in outputs_of(2).items()}
    size = gpu.ops.score_workspace(scorer, there | {"unread": None})
    results = [gpu.put(x) for x in results_of(SPECS["ocad"], 2)]
    workspace = gpu.put(np.empty(size, np.uint8))
    gpu.ops.score(scorer, statistics | {"x": 1}, there | {"unread": None}, *results, workspace=workspace)
    equal([gpu.get(x) for x in results], run(gpu, SPECS["ocad"], outputs_of(2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_statistics_of_a_scorer(gpu, dtype):
    stats = stats_of(dtype)
    found = gpu.module.Scorer(json.dumps(SPECS["ocad"]), stats).statistics()
    assert sorted(found) == ["latent.mean", "latent.whitener"]
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, stats[name].astype(np.float32))
    mixture = gpu.module.Scorer(json.dumps(SPECS["a mixture"]), stats).statistics()
    assert {name: value.shape for name, value in mixture.items()} == {
        "mixed.log_weights": (3,),
        "mixed.mean": (3, 6),
        "mixed.whitener": (3, 6, 6),
        "spread.log_weights": (2,),
        "spread.mean": (2, 6),
        "spread.whitener": (2, 6),
    }
    packed = gpu.module.Scorer(json.dumps(SPECS["padim"]), stats).statistics()["place.whitener"]
    np.testing.assert_array_equal(packed, stats["place.whitener"][(..., *np.tril_indices(6))].astype(np.float32))
    assert gpu.module.Scorer(json.dumps(SPECS["a probability"]), {}).statistics() == {}


def test_the_statistics_outlive_their_scorer(gpu):
    found = gpu.module.Scorer(json.dumps(SPECS["ocad"]), stats_of()).statistics()
    np.testing.assert_array_equal(found["latent.mean"], stats_of()["latent.mean"])


def test_wrong_specs_and_statistics(gpu):
    with pytest.raises(ConfigError, match="schema"):
        gpu.module.Scorer("{}", {})
    with pytest.raises(ArgumentError, match=r'scorer: statistic "latent\.mean" is missing; given: none'):
        gpu.module.Scorer(json.dumps(SPECS["ocad"]), {})
    with pytest.raises(TypeError):
        gpu.module.Scorer(SPECS["ocad"], stats_of())


def call(gpu, spec, outputs=None, statistics=None, results=None, workspace=None):
    scorer, own = prepared(gpu, spec)
    there = {name: gpu.put(value) for name, value in outputs_of(2).items()}
    if workspace is None:
        workspace = gpu.put(np.empty(gpu.ops.score_workspace(scorer, there), np.uint8))
    for_results = [gpu.put(x) for x in results_of(spec, 2)]
    for at, value in (results or {}).items():
        for_results[at] = gpu.put(value)
    statistics = own | {name: gpu.put(value) for name, value in (statistics or {}).items()}
    there |= {name: gpu.put(value) for name, value in (outputs or {}).items()}
    gpu.ops.score(scorer, statistics, there, *for_results, workspace=workspace)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({0: unwritten(2, 24, 31)}, r"scorer: maps has shape \[2,24,31\], expected \[N,h,w\] = \[2,24,32\]"),
        ({1: unwritten(2, 2, dtype="float64")}, r"scorer: terms has shape \[2,2\], expected \[N,T\] = \[2,3\]"),
        ({2: unwritten(3, dtype="float64")}, r"scorer: scores has shape \[3\], expected \[N\] = \[2\]"),
        ({0: unwritten(2, 24, 32, dtype="float64")}, "scorer: maps is float64, expected float32"),
        ({1: unwritten(2, 3)}, "scorer: terms is float32, expected float64"),
        ({2: unwritten(2)}, "scorer: scores is float32, expected float64"),
    ],
)
def test_wrong_results(gpu, results, message):
    with pytest.raises(ArgumentError, match=message):
        call(gpu, SPECS["ocad"], results=results)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent", normal(2, 5, 3, 4)),
        ("latent", normal(2, 6)),
        ("latent", normal(3, 6, 3, 4)),
        ("image", uniform(2, 3, 24, 31)),
        ("image", uniform(2, 3, 24, 32, dtype="float64")),
        ("image", uniform(2, 3, 24, 64)[..., ::2]),
        ("image", uniform(2, 0, 24, 32)),
    ],
)
def test_wrong_outputs_are_told_as_on_the_cpu(gpu, name, value):
    with pytest.raises(ArgumentError) as expected:
        on_the_cpu(SPECS["ocad"], outputs_of(2) | {name: value})
    with pytest.raises(ArgumentError) as found:
        call(gpu, SPECS["ocad"], {name: value})
    assert str(found.value) == str(expected.value)


def test_missing_outputs_and_statistics(gpu):
    scorer, statistics = prepared(gpu, SPECS["ocad"])
    there = {name: gpu.put(value) for name, value in outputs_of(2).items() if name != "latent"}
    with pytest.raises(ArgumentError, match=r'scorer: output "latent" is missing; given: image, reconstruction'):
        gpu.ops.score_workspace(scorer, there)
    with pytest.raises(ArgumentError, match=r"scorer: outputs are no mapping"):
        gpu.ops.score_workspace(scorer, [])
    there["latent"] = gpu.put(outputs_of(2)["latent"])
    results = [gpu.put(x) for x in results_of(SPECS["ocad"], 2)]
    del statistics["latent.whitener"]
    with pytest.raises(ArgumentError, match=r'scorer: statistic "latent\.whitener" is missing; given: latent\.mean'):
        gpu.ops.score(scorer, statistics, there, *results, workspace=gpu.put(np.empty(0, np.uint8)))


def test_wrong_statistics_and_workspace(gpu):
    spec = SPECS["ocad"]
    with pytest.raises(ArgumentError, match=r"scorer: latent\.whitener has shape \[6\], the scorer's has \[6,6\]"):
        call(gpu, spec, statistics={"latent.whitener": normal(6)})
    with pytest.raises(ArgumentError, match=r"scorer: latent\.mean is float64, expected float32"):
        call(gpu, spec, statistics={"latent.mean": normal(6, dtype="float64")})
    with pytest.raises(ArgumentError, match=r"scorer: workspace has 0 bytes, expected at least"):
        call(gpu, spec, workspace=gpu.put(np.empty(0, np.uint8)))
    with pytest.raises(ArgumentError, match=r"scorer: workspace is float32, expected uint8"):
        call(gpu, spec, workspace=gpu.put(normal(9)))


def view(gpu, tensor):
    address = tensor.ctypes.data if gpu.emulated else tensor.data_ptr()
    return gpu.module.View(address, tensor.shape, str(tensor.dtype).removeprefix("torch."))


def test_views_in_place_of_tensors(gpu):
    spec = SPECS["ocad"]
    scorer, statistics = prepared(gpu, spec)
    there = {name: gpu.put(value) for name, value in outputs_of(2).items()}
    results = [gpu.put(x) for x in results_of(spec, 2)]
    seen = {name: view(gpu, value) for name, value in there.items()}
    workspace = gpu.put(np.empty(gpu.ops.score_workspace(scorer, seen), np.uint8))
    gpu.ops.score(
        scorer,
        {name: view(gpu, value) for name, value in statistics.items()},
        seen,
        *(view(gpu, x) for x in results),
        workspace=view(gpu, workspace),
    )
    equal([gpu.get(x) for x in results], run(gpu, spec, outputs_of(2)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_view_of_pixels(gpu, dtype):
    pixels = (uniform(7, 5, 3) * 200).astype(dtype)
    there = gpu.put(pixels) if dtype != "uint16" or gpu.emulated else None
    if there is None:
        pytest.skip("torch has no tensors of uint16 to copy")
    how = {"resize": "stretch", "mean": [0.0] * 3, "std": [1.0] * 3}
    found, expected = gpu.put(unwritten(3, 4, 4)), gpu.put(unwritten(3, 4, 4))
    gpu.ops.prepare(there, expected, **how)
    gpu.ops.prepare(view(gpu, there), view(gpu, found), **how)
    np.testing.assert_array_equal(gpu.get(found), gpu.get(expected))


@pytest.mark.parametrize(
    ("address", "shape", "dtype", "message"),
    [
        (64, (2, 3), "float16", r'View: dtype is "float16", expected float32, float64, uint8 or uint16'),
        (64, (2, -1), "float32", r"View: shape is \[2,-1\], expected sizes of 0 or more"),
        (64, (1,) * 7, "float32", r"View: shape has 7 dimensions, expected at most 6"),
        (64, (2**40, 2**40), "float32", r"View: shape is .*, more than a memory can have"),
        (66, (2,), "float32", r"View: address is 66, expected a multiple of 4"),
        (65, (2,), "uint16", r"View: address is 65, expected a multiple of 2"),
    ],
)
def test_wrong_views(gpu, address, shape, dtype, message):
    with pytest.raises(ArgumentError, match=message):
        gpu.module.View(address, shape, dtype)


def test_the_cpus_module_takes_no_views(gpu):
    from normscan import _native

    memory = normal(2, 4, 4)
    with pytest.raises(ArgumentError, match="is a View, expected a tensor"):
        _native.pool(gpu.module.View(memory.ctypes.data, memory.shape, "float32"), normal(2), method="max")


@pytest.mark.cuda
def test_in_a_graph():
    """Captured once, replayed over new outputs in the same memory."""
    import torch

    from normscan import _cuda

    spec = SPECS["ocad at the image"]
    scorer = _cuda.Scorer(json.dumps(spec), stats_of())
    statistics = {name: torch.from_numpy(value).cuda() for name, value in scorer.statistics().items()}
    there = {name: torch.zeros(outputs_of(2)[name].shape, device="cuda") for name in names_of(spec)}
    results = [torch.from_numpy(x).cuda() for x in results_of(spec, 2)]
    device = torch.cuda.current_device()
    idle = _cuda.Stream(torch.cuda.current_stream().cuda_stream, device=device)
    workspace = torch.empty(idle.score_workspace(scorer, there), dtype=torch.uint8, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = _cuda.Stream(torch.cuda.current_stream().cuda_stream, device=device)
        stream.score(scorer, statistics, there, *results, workspace=workspace)
    for name, memory in there.items():
        memory.copy_(torch.from_numpy(outputs_of(2)[name]))
    graph.replay()
    for name, one, other in zip(NAMES, results, on_the_cpu(spec, outputs_of(2)), strict=True):
        assert_close(one.cpu().numpy(), other, f"scorer_{name}")
