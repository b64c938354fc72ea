"""The native ScoringSpec: defaults are written out, the text is canonical, and every mistake is named with its path.

Over 400 lines, since the spec is one text and each of its fields is checked in the same ways.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np
import pytest

from normscan import _native
from normscan.errors import ArgumentError, ConfigError, ImageError, InputError
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import Group, Input, Pool, ScoringSpec, Term

Spec = dict[str, Any]

DISTANCE: Spec = {"op": "distance", "of": ["reconstruction", "image"], "metric": "ssim"}
GAUSSIAN: Spec = {"op": "gaussian", "of": ["latent"], "stats": "latent", "form": "full", "per": "position_shared"}
INPUT: Spec = {"height": 64, "width": 48, "channels": 3, "resize": "fit", "mean": [0, 0, 0], "std": [1, 1, 1]}
CALIBRATION: Spec = {
    "rule": "order_statistic",
    "threshold": 1.25,
    "n": 100,
    "target_specificity": 0.95,
    "interval": [0.87, 0.98],
}
GROUP: Spec = {"pool": {"fraction": 0.5}, "positive": 0.1, "high": 0.4}
VALID: Spec = {
    "schema": 1,
    "family": "ocad",
    "input": INPUT,
    "terms": [DISTANCE, GAUSSIAN],
    "fuse": "sum",
    "pool_at": "term",
    "map": {"size": "input", "blur_sigma": 0.0},
}
WRITTEN_OUT: Spec = {
    **VALID,
    "terms": [
        {**DISTANCE, "window": 11, "pool": "mean", "scale": None, "weight": 1},
        {**GAUSSIAN, "output": "squared_distance", "pool": "mean", "scale": None, "weight": 1},
    ],
    "pool": None,
    "group": None,
    "calibration": None,
}
AT_IMAGE: Spec = {**VALID, "pool_at": "image", "pool": "max"}
ABSENT = object()


def canonical(spec: Spec) -> str:
    return _native.ScoringSpec(json.dumps(spec)).json()


def changed(spec: Spec, path: str, value: object) -> Spec:
    """A copy of the spec with one field set (or, with ABSENT, taken out); path as in messages: "terms[1].metric"."""
    spec = copy.deepcopy(spec)
    *outer, last = path.replace("[", ".").replace("]", "").split(".")
    inner: Any = spec
    for key in outer:
        inner = inner[int(key) if key.isdigit() else key]
    if value is ABSENT:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return spec


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _native.ScoringSpec(text)
    return str(caught.value)


def test_defaults_are_written_out() -> None:
    assert json.loads(canonical(VALID)) == WRITTEN_OUT


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("terms[0].window", 7),
        ("terms[0].metric", "l1"),
        ("terms[0].pool", "max"),
        ("terms[0].pool", {"topk": 0.01}),
        ("terms[0].pool", {"topk": 1}),
        ("terms[0].pool", {"quantile": 0.99}),
        ("terms[0].pool", {"quantile": 0}),
        ("terms[0].pool", {"area": -0.5}),
        ("terms[0].scale", 0.031),
        ("terms[0].weight", 0),
        ("terms[0].weight", 0.42),
        ("terms[1].per", "vector"),
        ("terms[1].form", "diagonal"),
        ("terms[1].form", "isotropic"),
        ("input.resize", "crop"),
        ("input.resize", "stretch"),
        ("input.height", 1),
        ("input.mean", [0.485, 0.456, 0.406]),
        ("map.size", [16, 24]),
        ("map.blur_sigma", 4.0),
        ("group", {"pool": "mean", "positive": None, "high": None}),
        ("group", {"pool": "max", "positive": 1.5, "high": None}),
        ("group", {"pool": "noisy_or", "positive": 0.5, "high": 0.5}),
        ("group", {"pool": {"topk": 0.1}, "positive": -2, "high": 3}),
        ("group", {"pool": {"fraction": 0.5}, "positive": 0, "high": 0.25}),
        ("calibration", CALIBRATION),
        ("family", 'стальной "лист" \\ \n 漢字 \U0001f9e0'),
    ],
)
def test_a_given_value_is_kept(path: str, value: object) -> None:
    expected = changed(WRITTEN_OUT, path, value)
    if expected["terms"][0]["metric"] != "ssim":
        del expected["terms"][0]["window"]
    assert json.loads(canonical(changed(VALID, path, value))) == expected


@pytest.mark.parametrize("per", ["vector", "position"])
def test_a_value_is_kept(per: str) -> None:
    term = {"op": "value", "of": ["probability"], "per": per}
    (written,) = json.loads(canonical({**VALID, "terms": [term]}))["terms"]
    assert written == {**term, "pool": "mean", "scale": None, "weight": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per": "position_shared"}, r'terms\[0\].per.*"vector" or "position"'),
        ({"per": "vector", "pool": "max"}, r"terms\[0\].pool.*mean"),
        ({"metric": "l1"}, r"terms\[0\].metric"),
        ({"stats": "z"}, r"terms\[0\].stats"),
        ({"of": ["a", "b"]}, r"terms\[0\].of.*one name"),
    ],
)
def test_a_wrong_value_is_refused(changes: Spec, message: str) -> None:
    term = {"op": "value", "of": ["probability"], "per": "vector", **changes}
    assert re.search(message, refused(json.dumps({**VALID, "terms": [term]})))


RESIDUAL: Spec = {"op": "stain", "of": ["reconstruction", "image"], "metric": "residual"}
RED: Spec = {**RESIDUAL, "metric": "red_ratio"}


@pytest.mark.parametrize(
    ("term", "defaults"),
    [
        (RESIDUAL, {"cut": 0}),
        ({**RESIDUAL, "cut": 0.6}, {}),
        (RED, {"hue": [350, 16], "least_saturation": 0}),
        ({**RED, "hue": [0, 30.5], "least_saturation": 0.2, "window": 15}, {}),
    ],
)
def test_a_stain_is_kept(term: Spec, defaults: Spec) -> None:
    text = canonical({**VALID, "terms": [term]})
    (written,) = json.loads(text)["terms"]
    assert written == {**term, **defaults, "pool": "mean", "scale": None, "weight": 1}
    assert ScoringSpec.from_json(text).native().json() == text


def test_a_stain_declared_in_python_is_the_same_from_its_own_text() -> None:
    terms = (
        Term("stain", ("a", "b"), metric="residual", cut=0.5),
        Term("stain", ("a", "b"), metric="red_ratio", hue=(340.0, 20.0), least_saturation=0.1, window=7),
    )
    spec = ScoringSpec("test", Input(8, 8), terms)
    assert ScoringSpec.from_json(spec.native().json()) == spec


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({**RESIDUAL, "metric": "l1"}, 'terms[0].metric is "l1", expected one of residual, red_ratio'),
        ({**RESIDUAL, "of": ["a"]}, 'terms[0].of is ["a"], expected two names: what is judged, and its reference'),
        ({**RESIDUAL, "cut": 1.5}, "terms[0].cut is 1.5, expected a number in -1..1"),
        ({**RESIDUAL, "hue": [0, 1]}, "terms[0].hue is for metric red_ratio only; leave it out"),
        ({**RESIDUAL, "least_saturation": 0}, "terms[0].least_saturation is for metric red_ratio only; leave it out"),
        ({**RESIDUAL, "window": 15}, "terms[0].window is for metric red_ratio only; leave it out"),
        ({**RED, "cut": 0}, "terms[0].cut is for metric residual only; leave it out"),
        ({**RED, "hue": [350]}, "terms[0].hue is [350], expected [from, to] in degrees"),
        ({**RED, "hue": 350}, "terms[0].hue is 350, expected a list"),
        ({**RED, "hue": [-10, 16]}, "terms[0].hue[0] is -10, expected a number in 0..360"),
        ({**RED, "hue": [350, "16"]}, 'terms[0].hue[1] is "16", expected a number in 0..360'),
        ({**RED, "least_saturation": 2}, "terms[0].least_saturation is 2, expected a number in 0..1"),
        ({**RED, "window": 14}, "terms[0].window is 14, expected an odd number"),
        ({**RED, "window": 1}, "terms[0].window is 1, expected a whole number in 3..1001"),
        ({**RED, "window": None}, "terms[0].window is null, expected a whole number"),
        ({**RED, "stats": "z"}, "terms[0].stats is not a field"),
    ],
)
def test_a_wrong_stain_is_refused(term: Spec, message: str) -> None:
    assert message in refused(json.dumps({**VALID, "terms": [term]}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1, "mean": [0], "std": [1]}, "input.channels is 1, expected 3"),
        ({"mean": [0, 0.5, 0]}, "input.mean[1] is 0.5, expected 0"),
        ({"std": [1, 1, 0.25]}, "input.std[2] is 0.25, expected 1"),
    ],
)
def test_a_stain_needs_the_colours_of_the_picture(changes: Spec, message: str) -> None:
    text = json.dumps({**VALID, "terms": [DISTANCE, RED], "input": {**INPUT, **changes}})
    assert f'{message}, since terms[1].op is "stain", of RGB in 0..1' in refused(text)


@pytest.mark.parametrize("value", ["mean", "max", {"topk": 0.25}, {"quantile": 0.5}, {"area": 0.1}])
def test_a_pool_of_the_image_is_kept(value: object) -> None:
    assert json.loads(canonical({**AT_IMAGE, "pool": value}))["pool"] == value


def test_a_product_is_taken_at_the_image() -> None:
    assert json.loads(canonical({**AT_IMAGE, "fuse": "product"}))["fuse"] == "product"


@pytest.mark.parametrize("spec", [VALID, AT_IMAGE, {**VALID, "calibration": CALIBRATION}])
def test_the_text_is_canonical(spec: Spec) -> None:
    """Sorted keys, no spaces, and the same text from itself, from other key orders and from other spacing."""
    text = canonical(spec)
    json.loads(
        text, object_pairs_hook=lambda pairs: pytest.fail(text) if pairs != sorted(pairs, key=lambda p: p[0]) else None
    )
    assert " " not in text
    assert "\n" not in text
    assert _native.ScoringSpec(text).json() == text
    assert canonical(json.loads(text)) == text
    backwards = json.dumps(dict(reversed(json.loads(text).items())), indent=3)
    assert _native.ScoringSpec(backwards).json() == text


@pytest.mark.parametrize(
    "number", [0.1, 1 / 3, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.125, 1e22, 2.5e-5, 100000.0]
)
def test_numbers_are_short_and_exact(number: float) -> None:
    text = canonical(changed(VALID, "terms[0].scale", number))
    tokens: list[str] = []

    def keep(token: str) -> float:
        tokens.append(token)
        return float(token)

    assert json.loads(text, parse_float=keep, parse_int=keep)["terms"][0]["scale"] == number
    for token in tokens:
        assert len(token) <= len(repr(float(token))), f"{token} is longer than {float(token)!r}"


@pytest.mark.parametrize("one", ["1", "1.0", "1e0", "10e-1"])
def test_equal_numbers_have_one_spelling(one: str) -> None:
    text = json.dumps(VALID).replace('"blur_sigma": 0.0', f'"blur_sigma": {one}')
    assert _native.ScoringSpec(text).json() == canonical(changed(VALID, "map.blur_sigma", 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"spec"',
        json.dumps(VALID) + "x",
        json.dumps(VALID)[:-1],
        json.dumps(VALID).replace('"schema": 1', '"schema": 01'),
        json.dumps(VALID).replace('"schema": 1,', '"schema": 1,,'),
        json.dumps(VALID).replace('"ocad"', "'ocad'"),
        json.dumps(VALID).replace('"ocad"', '"\\ud800"'),
        json.dumps(VALID).replace('"ocad"', '"a\nb"'),
        '{"schema":' + "[" * 100_000,
    ],
    ids=range(13),
)
def test_broken_json_is_refused(text: str) -> None:
    assert refused(text)


def test_a_key_given_twice_is_refused() -> None:
    assert "family" in refused(json.dumps(VALID)[:-1] + ', "family": "stfpm"}')


@pytest.mark.parametrize("path", ["schema", "family", "input", "terms"])
def test_a_missing_top_field_is_named(path: str) -> None:
    assert path in refused(json.dumps(changed(VALID, path, ABSENT)))


@pytest.mark.parametrize(
    "path",
    [
        *(f"input.{key}" for key in INPUT),
        "terms[0].op",
        "terms[0].of",
        "terms[0].metric",
        "terms[1].stats",
        "terms[1].of",
        "map.size",
    ],
)
def test_a_missing_inner_field_is_named(path: str) -> None:
    if path == "map.size":  # has a default wherever map has one: absent is the same as "input"
        assert json.loads(canonical(changed(VALID, path, ABSENT)))["map"]["size"] == "input"
        return
    message = refused(json.dumps(changed(VALID, path, ABSENT)))
    assert path in message


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("famly", "family"),
        ("pool_att", "pool_at"),
        ("input.heigth", "height"),
        ("terms[0].wieght", "weight"),
        ("terms[0].metrics", "metric"),
        ("terms[1].stat", "stats"),
        ("map.blur", "blur_sigma"),
        ("group.postive", "positive"),
        ("group.threshold", "positive"),
        ("calibration.threshhold", "threshold"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_one(path: str, nearest: str) -> None:
    spec = {**VALID, "group": GROUP, "calibration": CALIBRATION}
    message = refused(json.dumps(changed(spec, path, 1)))
    assert path in message
    assert re.search(rf"\b{nearest}\b", message.replace(path, "")), message


FULL: Spec = {**WRITTEN_OUT, "group": GROUP, "calibration": CALIBRATION}


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("schema", 2, "1"),
        ("schema", "1", "1"),
        ("schema", True, "1"),
        ("family", 7, "string|text"),
        ("family", "", "family"),
        ("input", [], "object"),
        ("input.height", 0, "0"),
        ("input.height", -4, "-4"),
        ("input.height", 2.5, "2.5"),
        ("input.width", "64", "64"),
        ("input.width", 1e30, "1e"),
        ("input.channels", 2, "2"),
        ("input.resize", "squeeze", "stretch"),
        ("input.mean", [0, 0], "3"),
        ("input.mean", 0, "list|array"),
        ("input.mean", [0, None, 0], "null"),
        ("input.std", [1, 0, 1], "0"),
        ("input.std", [1, -1, 1], "-1"),
        ("input.std", [1, 1, 1, 1], "3"),
        ("terms", [], "terms"),
        ("terms", {}, "list|array"),
        ("terms[0]", "distance", "object"),
        ("terms[0].op", "distence", "distance"),
        ("terms[0].of", ["image"], "2|two"),
        ("terms[0].of", ["a", "b", "c"], "2|two"),
        ("terms[0].of", "image", "list|array"),
        ("terms[0].of", ["image", 3], "3"),
        ("terms[0].of", ["image", ""], "of"),
        ("terms[0].metric", "mse", "l2"),
        ("terms[0].metric", 3, "3"),
        ("terms[0].window", 10, "odd"),
        ("terms[0].window", 1, "3"),
        ("terms[0].window", -11, "-11"),
        ("terms[0].window", 7.5, "7.5"),
        ("terms[1].window", 11, "window"),
        ("terms[1].metric", "l1", "metric"),
        ("terms[0].stats", "latent", "stats"),
        ("terms[0].form", "full", "form"),
        ("terms[0].per", "vector", "per"),
        ("terms[1].of", ["latent", "image"], "1"),
        ("terms[1].of", [], "1"),
        ("terms[1].stats", 5, "5"),
        ("terms[1].stats", "", "stats"),
        ("terms[1].form", "cholesky", "isotropic"),
        ("terms[1].per", "pixel", "position_shared|position"),
        ("terms[0].pool", "median", "quantile|mean"),
        ("terms[0].pool", "topk", "topk"),
        ("terms[0].pool", None, "null"),
        ("terms[0].pool", {}, "topk"),
        ("terms[0].pool", {"topk": 0.1, "area": 0.1}, "quantile"),
        ("terms[0].pool", {"topk": 0}, "0"),
        ("terms[0].pool", {"topk": 1.5}, "1.5"),
        ("terms[0].pool", {"quantile": -0.1}, "-0.1"),
        ("terms[0].pool", {"quantile": 1.1}, "1.1"),
        ("terms[0].pool", {"area": "big"}, "big"),
        ("terms[0].pool", {"top": 0.1}, "topk"),
        ("terms[0].scale", 0, "0"),
        ("terms[0].scale", -1, "-1"),
        ("terms[0].scale", "1", "number"),
        ("terms[0].weight", -0.5, "-0.5"),
        ("terms[0].weight", None, "null"),
        ("terms[0].weight", True, "true"),
        ("fuse", "average", "product"),
        ("fuse", None, "null"),
        ("pool_at", "pixel", "term"),
        ("pool", "max", "null"),
        ("map", "input", "object"),
        ("map.size", "picture", "input"),
        ("map.size", [4], "height"),
        ("map.size", [4, 0], "0"),
        ("map.size", [4, 4.5], "4.5"),
        ("map.blur_sigma", -1, "-1"),
        ("map.blur_sigma", None, "null"),
        ("group", "max", "object"),
        ("group.pool", "median", "noisy_or"),
        ("group.pool", "fraction", "mean, max, noisy_or"),
        ("group.pool", None, '{"fraction": threshold}'),
        ("group.pool", ABSENT, '{"fraction": threshold}'),
        ("group.pool", {}, '{"fraction": threshold}'),
        ("group.pool", {"topk": 0.1, "fraction": 0.5}, '{"fraction": threshold}'),
        ("group.pool", {"quantile": 0.5}, "topk, fraction"),
        ("group.pool.fraction", None, "null"),
        ("group.pool", {"topk": 0}, "a share > 0"),
        ("group.pool", {"topk": 1.5}, "1.5"),
        ("group.positive", "0.1", "a number"),
        ("group.high", True, "a number"),
        ("group.high", 0.05, "is 0.05, expected a number >= 0.1, which is group.positive"),
        ("calibration", 1.5, "object"),
        ("calibration.threshold", "high", "high"),
        ("calibration.target_specificity", 1.5, "1.5"),
        ("calibration.n", -1, "-1"),
        ("calibration.n", 2.5, "2.5"),
        ("calibration.interval", [0.5], "low"),
        ("calibration.rule", "mean", "order_statistic"),
    ],
)
def test_a_wrong_value_is_refused_with_path_and_what_is_allowed(path: str, value: object, shown: str) -> None:
    assert canonical(FULL)  # seen to pass without the change
    message = refused(json.dumps(changed(FULL, path, value)))
    assert path in message
    assert any(part in message for part in shown.split("|")), message


NUMBERS = (
    "input.mean[1]",
    "input.std[0]",
    "terms[0].scale",
    "terms[0].weight",
    "map.blur_sigma",
    "group.pool.fraction",
    "group.positive",
    "group.high",
    "calibration.threshold",
    "calibration.interval[1]",
)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan", "inf"])
@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_that_is_not_finite_is_refused(path: str, number: str) -> None:
    text = json.dumps(changed(FULL, path, "@")).replace('"@"', number)
    assert refused(text)


@pytest.mark.parametrize("key", ["topk", "quantile", "area"])
def test_a_pool_parameter_that_is_not_finite_is_refused(key: str) -> None:
    text = json.dumps(changed(FULL, "terms[0].pool", {key: "@"})).replace('"@"', "1e999")
    assert refused(text)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine", "relative_l1"])
def test_a_window_is_for_ssim_and_cs_only(metric: str) -> None:
    message = refused(json.dumps(changed(FULL, "terms[0].metric", metric)))
    assert "terms[0].window" in message


@pytest.mark.parametrize("positive", [None, ABSENT])
def test_a_high_density_needs_a_positive_one(positive: object) -> None:
    message = refused(json.dumps(changed(FULL, "group.positive", positive)))
    assert "group.high is 0.4, expected null, since group.positive is null" in message


def test_the_thresholds_of_a_group_are_written_as_null_where_they_are_not_given() -> None:
    written = json.loads(canonical({**VALID, "group": {"pool": "max"}}))["group"]
    assert written == {"pool": "max", "positive": None, "high": None}


@pytest.mark.parametrize(
    "group", [Group("max"), Group("noisy_or", positive=0.5), Group({"topk": 0.2}, 1, 2), Group({"fraction": 0.5}, 0, 0)]
)
def test_a_group_is_the_same_from_its_own_text(group: Group) -> None:
    spec = ScoringSpec("test", Input(8, 8), (Term("distance", ("a", "b"), metric="l1"),), group=group)
    assert ScoringSpec.from_json(spec.native().json()) == spec


@pytest.mark.parametrize(
    ("positive", "high", "expected"),
    [
        (None, None, [None] * 4),
        (1.0, None, ["negative", "negative", "positive", "positive"]),
        (1.0, 2.0, ["negative", "negative", "low", "high"]),
        (1.0, 1.0, ["negative", "negative", "high", "high"]),
    ],
)
def test_the_density_that_a_score_says(positive: float | None, high: float | None, expected: list[str | None]) -> None:
    """At a threshold is not above it."""
    group = Group("max", positive, high)
    assert [group.density(score) for score in (0.5, 1.0, 2.0, 2.5)] == expected


@pytest.mark.parametrize("positive", [None, 1.0])
def test_a_group_without_a_score_has_no_density(positive: float | None) -> None:
    with pytest.raises(ImageError, match="nan, expected a finite number"):
        Group("max", positive).density(float("nan"))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("mean", {"a": 0.25, "b": 0.5}),
        ("max", {"a": 0.5, "b": 0.5}),
        ("noisy_or", {"a": 0.5, "b": 0.5}),
        ({"topk": 0.5}, {"a": 0.5, "b": 0.5}),
        ({"fraction": 0.25}, {"a": 0.5, "b": 1.0}),
    ],
)
def test_the_scorer_groups_by_the_rule(pool: Pool, expected: dict[str, float]) -> None:
    term = Term("distance", ("a", "b"), metric="l1")
    scorer = Scorer(ScoringSpec("test", Input(8, 8), (term,), group=Group(pool)), {})
    assert scorer.group(np.array([0.5, 0.5, 0.0]), ["a", "b", "a"]) == expected


def test_all_weights_zero_are_refused() -> None:
    spec = changed(changed(VALID, "terms[0].weight", 0), "terms[1].weight", 0)
    assert "weight" in refused(json.dumps(spec))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"fuse": "product"}, "pool_at"),  # a product of maps has no sum of pooled terms
        ({"pool_at": "image"}, "pool"),
        ({"pool_at": "image", "pool": None}, "pool"),
        ({"pool": "mean"}, "pool"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes: Spec, shown: str) -> None:
    assert shown in refused(json.dumps({**VALID, **changes}))


def test_a_pool_of_a_term_that_nobody_would_use_is_refused() -> None:
    assert "terms[0].pool" in refused(json.dumps(changed(AT_IMAGE, "terms[0].pool", "max")))


def test_a_product_with_weights_is_refused() -> None:
    spec = {**changed(VALID, "terms[1].weight", 0.5), "fuse": "product", "pool_at": "image", "pool": "max"}
    message = refused(json.dumps(spec))
    assert "terms[1].weight" in message
    assert "product" in message


def test_the_error_is_an_input_error() -> None:
    with pytest.raises(InputError):
        _native.ScoringSpec("{}")


@pytest.mark.parametrize("value", [None, 3, {"schema": 1}])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises((ArgumentError, TypeError)):
        _native.ScoringSpec(value)
