"""The native Scorer against the reference: fused map, terms and score, for every shape of spec."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from arrays import LAYOUTS, normal, uniform
from normscan import _native
from normscan.errors import ArgumentError, ConfigError
from reference import scorer as reference
from specs import (
    L1,
    LATENT,
    POSITION,
    PROBABILITY,
    SPECS,
    SSIM,
    STAIN,
    VALUE,
    VECTOR,
    Spec,
    outputs_of,
    spec_of,
    stats_of,
)
from tolerances import assert_close


def scorer_of(spec: Spec, stats: dict[str, Any] | None = None) -> _native.Scorer:
    return _native.Scorer(_native.ScoringSpec(json.dumps(spec)), stats_of() if stats is None else stats)


def names_of(spec: Spec) -> set[str]:
    return {name for term in spec["terms"] for name in term["of"]}


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("name", SPECS)
def test_scores_agree_with_the_reference(name: str, images: int) -> None:
    outputs = outputs_of(images)
    maps, terms, scores = scorer_of(SPECS[name]).score(outputs)
    expected = reference.score(SPECS[name], stats_of(), outputs)
    assert (maps.dtype.name, terms.dtype.name, scores.dtype.name) == ("float32", "float64", "float64")
    assert all(type(x) is np.ndarray for x in (maps, terms, scores))
    assert_close(maps, expected.maps, "scorer_maps")
    assert_close(terms, expected.terms, "scorer_terms")
    assert_close(scores, expected.scores, "scorer_scores")


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_is_its_images_one_by_one(name: str) -> None:
    """Bit for bit: the score of a picture may not depend on the company it was scored in."""
    scorer, outputs = scorer_of(SPECS[name]), outputs_of(5)
    together = scorer.score(outputs)
    for image in range(5):
        alone = scorer.score({key: value[image : image + 1] for key, value in outputs.items()})
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, many[image : image + 1])


@pytest.mark.parametrize("name", SPECS)
def test_an_empty_batch(name: str) -> None:
    maps, terms, scores = scorer_of(SPECS[name]).score(outputs_of(0))
    assert maps.shape[0] == 0
    assert terms.shape == (0, len(SPECS[name]["terms"]))
    assert scores.shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "broken"), [(name, key) for name in SPECS for key in sorted(names_of(SPECS[name]))])
def test_a_value_that_is_not_finite_makes_the_score_nan(name: str, broken: str, value: float) -> None:
    """Of its own picture and of no other, even under a maximum, a top-k, an area or a weight of zero."""
    scorer, outputs = scorer_of(SPECS[name]), outputs_of(3)
    expected = scorer.score(outputs)[2]
    outputs[broken].reshape(3, -1)[1, -1] = value
    scores = scorer.score(outputs)[2]
    assert np.isnan(scores[1])
    np.testing.assert_array_equal(scores[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("name", SPECS)
def test_the_names_of_the_outputs(name: str) -> None:
    found = scorer_of(SPECS[name]).outputs
    assert isinstance(found, list)
    assert len(found) == len(set(found))
    assert set(found) == names_of(SPECS[name])


def test_the_threshold_is_the_calibrations() -> None:
    calibration = {
        "rule": "order_statistic",
        "threshold": 1.25,
        "n": 100,
        "target_specificity": 0.95,
        "interval": [0.8, 1],
    }
    assert scorer_of(spec_of(L1)).threshold is None
    assert scorer_of(spec_of(L1, calibration=None)).threshold is None
    assert scorer_of(spec_of(L1, calibration=calibration)).threshold == 1.25


def test_the_input_size_is_the_map_size() -> None:
    assert scorer_of(spec_of(LATENT)).score(outputs_of(2))[0].shape == (2, 24, 32)
    assert scorer_of(spec_of(LATENT, map={"size": [5, 7], "blur_sigma": 0})).score(outputs_of(2))[0].shape == (2, 5, 7)


def test_a_vector_term_is_the_same_all_over_the_map() -> None:
    maps, terms, scores = scorer_of(spec_of(VECTOR)).score(outputs_of(2))
    np.testing.assert_allclose(maps, np.broadcast_to((terms / 7.5)[:, :, None], maps.shape), rtol=1e-6)
    np.testing.assert_allclose(scores, terms[:, 0] / 7.5, rtol=1e-12)


def test_scale_and_weight_act_on_the_score_and_not_on_the_term() -> None:
    plain, scaled = L1 | {"weight": 1}, L1 | {"weight": 3, "scale": 4}
    _, terms, scores = scorer_of(spec_of(plain)).score(outputs_of(2))
    _, scaled_terms, scaled_scores = scorer_of(spec_of(scaled)).score(outputs_of(2))
    np.testing.assert_array_equal(terms, scaled_terms)
    np.testing.assert_allclose(scaled_scores, scores * 0.75, rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["ocad", "stfpm", "a vector"])
def test_outputs_in_every_layout(name: str, layout: str) -> None:
    outputs = outputs_of(3)
    expected = reference.score(SPECS[name], stats_of(), outputs)
    maps, _, scores = scorer_of(SPECS[name]).score({key: LAYOUTS[layout](value) for key, value in outputs.items()})
    assert_close(maps, expected.maps, "scorer_maps")
    assert_close(scores, expected.scores, "scorer_scores")


def test_torch_outputs_and_float64_stats() -> None:
    outputs, scorer = outputs_of(2), scorer_of(SPECS["ocad"], stats_of("float64"))
    found = scorer.score({key: torch.from_numpy(value) for key, value in outputs.items()})
    expected = reference.score(SPECS["ocad"], stats_of("float64"), outputs)
    assert_close(found[2], expected.scores, "scorer_scores")


def test_outputs_that_no_term_reads_are_left_alone() -> None:
    outputs = {key: outputs_of(2)[key] for key in ("image", "reconstruction")}
    expected = scorer_of(spec_of(L1)).score(outputs)
    found = scorer_of(spec_of(L1)).score(outputs | {"unread": np.full((2, 1), np.nan, np.float32)})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_scorer_keeps_its_own_copy_of_the_statistics() -> None:
    stats = stats_of()
    scorer = scorer_of(SPECS["ocad"], stats)
    expected = scorer.score(outputs_of(2))[2]
    for value in stats.values():
        value[...] = np.nan
    np.testing.assert_array_equal(scorer.score(outputs_of(2))[2], expected)


def test_results_are_new_arrays_each_time() -> None:
    scorer, outputs = scorer_of(SPECS["ocad"]), outputs_of(2)
    first = scorer.score(outputs)
    kept = [x.copy() for x in first]
    scorer.score({key: value + 1 for key, value in outputs.items()})
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("missing", ["latent.mean", "latent.whitener"])
def test_missing_statistics_are_named(missing: str) -> None:
    with pytest.raises(ArgumentError, match=missing.replace(".", r"\.")):
        scorer_of(SPECS["ocad"], {key: value for key, value in stats_of().items() if key != missing})


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        ("full", (6,)),
        ("full", (1,)),
        ("full", (6, 5)),
        ("full", (5, 5)),
        ("diagonal", (6, 6)),
        ("diagonal", (1,)),
        ("diagonal", (5,)),
        ("isotropic", (6,)),
        ("isotropic", (6, 6)),
        ("isotropic", (1, 1)),
    ],
)
def test_a_whitener_that_is_not_of_the_form_is_refused(form: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"latent\.whitener"):
        scorer_of(spec_of(LATENT | {"form": form}), stats_of() | {"latent.whitener": np.ones(shape, np.float32)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_triangles_score_as_full_ones(dtype: str) -> None:
    """And what stands above the diagonal of full ones is not read."""
    stats, outputs = stats_of(dtype), outputs_of(3)
    expected = scorer_of(SPECS["padim"], stats).score(outputs)
    full = stats["place.whitener"]
    packed = np.ascontiguousarray(full[(..., *np.tril_indices(6))])
    for whitener in (packed, full + np.triu(np.full_like(full, 1e30), 1), np.asfortranarray(full)):
        for one, other in zip(
            scorer_of(SPECS["padim"], stats | {"place.whitener": whitener}).score(outputs), expected, strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mean", (6,), r"\[6\], expected \[C,H,W\]"),
        ("mean", (6, 0, 4), r"empty.*\[6,0,4\]"),
        ("mean", (6, 4, 3), r"whitener has shape \[3,4,6,6\].*\[4,3,6,6\]"),
        ("whitener", (6, 6), r"\[6,6\], expected \[H,W,C,C\] or packed"),
        ("whitener", (3, 4, 6), r"\[3,4,6\], expected packed .*\[3,4,21\]"),
        ("whitener", (3, 4, 6, 5), r"\[3,4,6,5\], expected .*\[3,4,6,6\]"),
    ],
)
def test_position_statistics_of_a_wrong_shape_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=rf"place\.{name}|place\.whitener") as caught:
        scorer_of(SPECS["padim"], stats_of() | {f"place.{name}": np.ones(shape, np.float32)})
    assert re.search(message, str(caught.value)), caught.value


@pytest.mark.parametrize("form", ["diagonal", "isotropic"])
def test_positions_have_full_gaussians(form: str) -> None:
    with pytest.raises(ConfigError, match=rf'terms\[0\]\.form.*"{form}".*"full" where per is "position"'):
        scorer_of(spec_of(POSITION | {"form": form}))


def test_a_map_of_another_size_than_the_positions_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"\"latent\" has 4 x 3 positions, place\.mean has 3 x 4"):
        scorer_of(SPECS["padim"]).score({"latent": normal(2, 6, 4, 3)})
    with pytest.raises(ArgumentError, match=r"\"latent\" has 5 channels, place\.mean has 6"):
        scorer_of(SPECS["padim"]).score({"latent": normal(2, 5, 3, 4)})


@pytest.mark.parametrize("name", ["latent.mean", "latent.whitener"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_not_finite_give_no_finite_score(name: str, value: float) -> None:
    stats = stats_of()
    stats[name].reshape(-1)[0] = value
    assert not np.isfinite(scorer_of(SPECS["ocad"], stats).score(outputs_of(2))[2]).any()


@pytest.mark.parametrize("name", ["latent.mean", "latent.whitener"])
def test_statistics_of_a_wrong_dtype_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=name.replace(".", r"\.") + ".*int32"):
        scorer_of(SPECS["ocad"], stats_of() | {name: stats_of()[name].astype("int32")})


@pytest.mark.parametrize("missing", ["image", "reconstruction", "latent"])
def test_a_missing_output_is_named(missing: str) -> None:
    outputs = outputs_of(2)
    del outputs[missing]
    with pytest.raises(ArgumentError, match=missing):
        scorer_of(SPECS["ocad"]).score(outputs)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("latent", normal(2, 5, 3, 4), r"latent.*\b5\b.*\b6\b|latent.*\b6\b.*\b5\b"),
        ("latent", normal(2, 6), r"latent"),
        ("latent", normal(2, 6, 3), r"latent"),
        ("latent", normal(3, 6, 3, 4), r"latent.*\b3\b.*\b2\b|latent.*\b2\b.*\b3\b"),
        ("vector", normal(2, 19, 1, 1), r"vector"),
        ("vector", normal(2, 18), r"vector.*\b18\b.*\b19\b|vector.*\b19\b.*\b18\b"),
        ("values", normal(2, 2, 9, 11), r"values.*2 channels.*1"),
        ("values", normal(2, 1), r"values"),
        ("probability", normal(2, 3), r"probability.*3 channels.*1"),
        ("probability", normal(2), r"probability"),
        ("image", uniform(2, 3, 24, 31), r"image.*\b31\b|image.*\b32\b"),
        ("image", uniform(2, 1, 24, 32), r"image.*1 channels, expected 3: red, green and blue"),
        ("image", uniform(2, 24, 32), r"image"),
        ("image", uniform(1, 3, 24, 32), r"image"),
        ("image", uniform(2, 3, 24, 32, dtype="float64"), r"image.*float64.*float32|image.*float32.*float64"),
        ("image", np.zeros((2, 3, 24, 32), np.uint8), r"image.*uint8.*float32"),
        ("image", uniform(2, 3, 24, 64)[..., ::2], r"image.*stride"),
        ("image", [[1.0]], r"image.*list"),
        ("image", torch.zeros(2, 3, 24, 32, requires_grad=True), r"image.*detach"),
    ],
)
def test_a_wrong_output_is_refused(key: str, value: object, message: str) -> None:
    scorer = scorer_of(spec_of(STAIN, SSIM, LATENT, VECTOR, VALUE, PROBABILITY))
    with pytest.raises(ArgumentError, match=message):
        scorer.score(outputs_of(2) | {key: value})


def test_a_scorer_may_be_used_from_many_threads() -> None:
    scorer, outputs = scorer_of(SPECS["ocad"]), outputs_of(3)
    expected = scorer.score(outputs)[2]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: scorer.score(outputs)[2], range(20)):
            np.testing.assert_array_equal(found, expected)


def test_the_number_of_threads_changes_no_bit() -> None:
    scorer, outputs, before = scorer_of(SPECS["ocad at the image"]), outputs_of(3), _native.threads()
    try:
        _native.set_threads(1)
        expected = scorer.score(outputs)
        for count in (2, 3, 8):
            _native.set_threads(count)
            for one, other in zip(scorer.score(outputs), expected, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        _native.set_threads(before)


def test_a_spec_and_a_text_are_not_the_same() -> None:
    with pytest.raises((ArgumentError, TypeError)):
        _native.Scorer(json.dumps(spec_of(L1)), {})
