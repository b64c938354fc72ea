"""Metrics against scikit-learn, against scipy and against their definitions written out slowly."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from normscan.errors import ArgumentError
from normscan.scoring import calibrate, metrics


def scored_set(n: int, m: int, seed: int = 0, shift: float = 1.0, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """n normal, m abnormal scores, rounded so that many tie."""
    random = np.random.default_rng(seed)
    labels = np.r_[np.zeros(n, int), np.ones(m, int)]
    return labels, np.round(random.standard_normal(n + m) + shift * labels, digits)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[int], list[float]]:
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(-5, 5).map(lambda i: i / 3) | st.floats(-1e3, 1e3), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda x: 0 < sum(x) < len(x)))
    return labels, scores


@settings(deadline=None, max_examples=60)
@given(labelled())
def test_curves_are_those_of_scikit_learn(case: tuple[list[int], list[float]]) -> None:
    labels, scores = case
    assert metrics.auroc(labels, scores) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        sklearn.metrics.average_precision_score(labels, scores), abs=1e-12
    )
    false, true, thresholds = metrics.roc_curve(labels, scores)
    expected = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0], atol=1e-12)
    np.testing.assert_allclose(true, expected[1], atol=1e-12)
    for x, y, threshold in zip(false, true, thresholds, strict=True):
        sensitivity, specificity = metrics.sensitivity_specificity(labels, scores, threshold)
        assert (sensitivity, specificity) == (pytest.approx(y), pytest.approx(1 - x))


def slow_delong(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The structural components of DeLong (1988), pair by pair."""
    x, y = scores[labels == 1], scores[labels == 0]
    psi = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    error = np.sqrt(psi.mean(axis=1).var(ddof=1) / len(x) + psi.mean(axis=0).var(ddof=1) / len(y))
    low, high = psi.mean() + scipy.stats.norm.ppf([0.025, 0.975]) * error
    return max(low, 0.0), min(high, 1.0)


@pytest.mark.parametrize(("n", "m", "digits"), [(2, 2, 8), (19, 111, 8), (111, 19, 0), (60, 60, 1)])
def test_delong_is_the_pairwise_definition(n: int, m: int, digits: int) -> None:
    labels, scores = scored_set(n, m, digits=digits)
    np.testing.assert_allclose(metrics.delong_interval(labels, scores), slow_delong(labels, scores), atol=1e-12)


def test_delong_covers_the_true_area() -> None:
    truth = scipy.stats.norm.cdf(1 / np.sqrt(2))
    intervals = [metrics.delong_interval(*scored_set(60, 60, seed, digits=9)) for seed in range(600)]
    assert np.mean([low <= truth <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.025)


def test_bootstrap_agrees_with_delong_for_single_images_and_widens_for_copies() -> None:
    labels, scores = scored_set(80, 60)
    single = metrics.bootstrap_interval(labels, scores, range(140), seed=3)
    np.testing.assert_allclose(single, metrics.delong_interval(labels, scores), atol=0.01)
    # Five copies of every image hold no more evidence than one: grouped intervals know, ungrouped ones do not.
    copies, many = np.repeat(labels, 5), np.repeat(scores, 5)
    grouped = metrics.auroc_interval(copies, many, groups=np.repeat(np.arange(140), 5).tolist())
    np.testing.assert_allclose(grouped, single, atol=0.01)
    naive = metrics.auroc_interval(copies, many)
    assert naive[1] - naive[0] < 0.6 * (grouped[1] - grouped[0])


def test_bootstrap_is_seeded_and_is_the_slow_bootstrap() -> None:
    labels, scores = scored_set(20, 15)
    groups = ["a", None, "b"] * 5 + list(range(20))
    found = metrics.bootstrap_interval(labels, scores, groups, seed=5, repeats=50)
    assert found == metrics.bootstrap_interval(labels, scores, groups, seed=5, repeats=50)
    numbers: dict[object, int] = {}
    members = np.array([numbers.setdefault((i, g) if g is None else g, len(numbers)) for i, g in enumerate(groups)])
    random, areas = np.random.default_rng(5), []
    while len(areas) < 50:
        drawn = np.concatenate([np.flatnonzero(members == g) for g in random.integers(len(numbers), size=len(numbers))])
        if 0 < labels[drawn].sum() < len(drawn):
            areas.append(sklearn.metrics.roc_auc_score(labels[drawn], scores[drawn]))
    np.testing.assert_allclose(found, np.quantile(areas, [0.025, 0.975]), atol=1e-12)


def test_interval_method_depends_on_the_groups() -> None:
    labels, scores = scored_set(30, 30)
    assert metrics.auroc_interval(labels, scores, [None] * 60) == metrics.delong_interval(labels, scores)
    pairs = [i // 2 for i in range(60)]
    assert metrics.auroc_interval(labels, scores, pairs, seed=1) == metrics.bootstrap_interval(
        labels, scores, pairs, seed=1
    )


# ---- pixels


def maps_and_masks(seed: int = 0, digits: int = 1) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for side in (19, 24, 31, 12):
        mask = scipy.ndimage.gaussian_filter(random.standard_normal((side, side + 3)), 2) > 0.12
        maps.append(np.round(random.standard_normal(mask.shape) + 0.8 * mask, digits).astype(np.float32))
        masks.append(mask)
    masks[3] = None
    return maps, masks


def flat(maps: list[np.ndarray], masks: list[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    full = [np.zeros(m.shape, bool) if k is None else k for m, k in zip(maps, masks, strict=True)]
    return np.concatenate([k.ravel() for k in full]), np.concatenate([m.ravel() for m in maps])


def slow_aupro(maps: list[np.ndarray], masks: list[np.ndarray | None], limit: float) -> float:
    """Threshold by threshold, region by region, then trapezoids cut at the limit."""
    regions = []
    for values, mask in zip(maps, masks, strict=True):
        if mask is not None:
            numbered, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
            regions += [values[numbered == r] for r in range(1, count + 1)]
    inside, values = flat(maps, masks)
    x, y = [0.0], [0.0]
    for threshold in np.unique(values)[::-1]:
        x.append(np.mean(values[~inside] >= threshold))
        y.append(np.mean([np.mean(region >= threshold) for region in regions]))
    grid = np.r_[[v for v in x if v < limit], limit]
    area, cut = 0.0, np.interp(limit, x, y) if limit not in x else y[max(i for i, v in enumerate(x) if v == limit)]
    heights = np.r_[y[: len(grid) - 1], cut]
    for i in range(1, len(grid)):
        area += (grid[i] - grid[i - 1]) * (heights[i] + heights[i - 1]) / 2
    return area / limit


@pytest.mark.parametrize("digits", [0, 1, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_pixel_metrics_are_their_definitions(seed: int, digits: int) -> None:
    maps, masks = maps_and_masks(seed, digits)
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(
        sklearn.metrics.roc_auc_score(*flat(maps, masks)), abs=1e-12
    )
    for limit in (0.05, 0.3, 1.0):
        assert metrics.aupro(iter(maps), iter(masks), limit) == pytest.approx(slow_aupro(maps, masks, limit), abs=1e-12)


def test_pixel_metrics_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = maps_and_masks()
    whole = metrics.pixel_auroc(maps, masks), metrics.aupro(maps, masks)
    monkeypatch.setattr(metrics, "_BLOCK", 7)
    np.testing.assert_allclose((metrics.pixel_auroc(maps, masks), metrics.aupro(maps, masks)), whole, rtol=1e-12)


def test_a_small_region_weighs_as_much_as_a_large_one() -> None:
    mask = np.zeros((20, 20), bool)
    mask[0, 0] = mask[1, 1] = True  # one region, by its corner
    mask[10:, 10:] = True
    found = np.where(mask, 1.0, 0.0)
    found[:5] = 0.0
    assert metrics.aupro([found], [mask], 1.0) == pytest.approx(0.75)  # one of two regions, the other by chance
    assert metrics.pixel_auroc([found], [mask]) == pytest.approx(1 - 0.5 * 2 / 102)


def test_pixel_errors_name_the_map() -> None:
    maps, masks = maps_and_masks()
    with pytest.raises(ArgumentError, match=r"map 1 has shape \[24, 27\] and its mask \[19, 22\]"):
        metrics.pixel_auroc(maps, [masks[0], masks[0], None, None])
    with pytest.raises(ArgumentError, match="ends after 2"):
        metrics.aupro(maps, masks[:2])
    with pytest.raises(ArgumentError, match="0 anomalous pixels"):
        metrics.aupro(maps, [None] * 4)
    with pytest.raises(ArgumentError, match="limit is 0"):
        metrics.aupro(maps, masks, 0)
    maps[2][0, 0] = np.nan
    with pytest.raises(ArgumentError, match="map 2 has 1 of 1054 values that are not finite"):
        metrics.aupro(maps, masks)


# ---- the summary


def test_summary_holds_every_number() -> None:
    labels, scores = scored_set(40, 30, shift=2)
    normal = np.random.default_rng(9).standard_normal(60)
    found = calibrate.calibrate(normal)
    assert found is not None
    report = metrics.summary(
        labels, scores, threshold=found.threshold, target_specificity=0.95, n_calibration=60, seed=4
    )
    called = scores > found.threshold
    tn, fp, fn, tp = sklearn.metrics.confusion_matrix(labels, called).ravel().tolist()
    assert report["counts"] == {
        "normal": 40,
        "abnormal": 30,
        "true_positive": tp,
        "false_negative": fn,
        "true_negative": tn,
        "false_positive": fp,
    }
    assert report["image_auroc"] == metrics.auroc(labels, scores)
    assert report["image_auroc_ci"] == list(metrics.delong_interval(labels, scores))
    assert report["image_auroc_ci_method"] == "delong"
    assert report["prevalence"] == 30 / 70
    assert (report["sensitivity"], report["specificity"]) == (tp / 30, tn / 40)
    assert report["specificity_ci"] == list(calibrate.clopper_pearson(tn, 40))
    assert report["specificity_prediction_interval"] == list(calibrate.prediction_interval(60, 40))
    assert report["specificity_as_promised"] is True
    assert report["pixel_auroc"] is None
    assert json.loads(json.dumps(report)) == report


def test_summary_sees_a_broken_promise() -> None:
    labels, scores = scored_set(40, 30)
    report = metrics.summary(labels, scores, threshold=-1.0, target_specificity=0.95, n_calibration=60)
    assert report["specificity_as_promised"] is False
    assert (
        metrics.summary(labels, scores, threshold=0.0, target_specificity=0.95, n_calibration=3)[
            "specificity_as_promised"
        ]
        is None
    )


@pytest.mark.parametrize("kind", [0, 1])
def test_summary_of_one_class(kind: int) -> None:
    report = metrics.summary([kind] * 5, np.arange(5.0), threshold=2.5)
    assert report["image_auroc"] is report["image_auroc_ci"] is report["auprc"] is None
    assert report["prevalence"] == kind
    assert report["specificity" if kind else "sensitivity"] is None
    assert report["sensitivity" if kind else "specificity"] == pytest.approx(0.4 if kind else 0.6)


def test_summary_of_nothing_and_of_too_few() -> None:
    report = metrics.summary([], [])
    assert {value for key, value in report.items() if key != "counts"} == {None}
    assert metrics.summary([0, 1], [0.0, 1.0])["image_auroc_ci"] is None


def test_summary_leaves_abnormal_images_without_mask_out_of_the_pixels() -> None:
    maps, masks = maps_and_masks()
    values = np.arange(4.0)
    normal = metrics.summary([1, 1, 1, 0], values, maps=iter(maps), masks=iter(masks))
    assert normal["pixel_auroc"] == metrics.pixel_auroc(maps, masks)
    assert normal["aupro"] == metrics.aupro(maps, masks)
    unmasked = metrics.summary([1, 1, 1, 1], values, maps=maps, masks=masks)
    assert unmasked["aupro"] == metrics.aupro(maps[:3], masks[:3])
    assert metrics.summary([1, 1, 1, 0], values, maps=maps, masks=[None] * 4)["aupro"] is None
    unmapped = metrics.summary([1, 1, 1, 0], values, maps=[*maps[:3], None], masks=masks)
    assert unmapped["aupro"] == unmasked["aupro"]
    with pytest.raises(ArgumentError, match="labels, maps and masks differ in number"):
        metrics.summary([1, 1, 1, 0], values, maps=maps, masks=masks[:3])


def test_errors_say_what_was_found() -> None:
    with pytest.raises(ArgumentError, match="found 0 normal and 3 abnormal"):
        metrics.auroc([1, 1, 1], [1, 2, 3])
    with pytest.raises(ArgumentError, match="of 3 scores 1 are NaN and 1 infinite"):
        metrics.summary([0, 1, 1], [np.nan, 1, np.inf])
    with pytest.raises(ArgumentError, match=r"2 of 3 labels are neither 0 .*first is None"):
        metrics.auroc([0, None, 2], [1, 2, 3])
    with pytest.raises(ArgumentError, match=r"labels of shape \[2\] and scores of shape \[3\]"):
        metrics.auroc([0, 1], [1, 2, 3])
    with pytest.raises(ArgumentError, match="found 1 normal and 2 abnormal images, expected at least 2"):
        metrics.delong_interval([0, 1, 1], [1, 2, 3])
    with pytest.raises(ArgumentError, match="found 2 for 3 scores"):
        metrics.auroc_interval([0, 1, 1], [1, 2, 3], ["a", "b"])
    with pytest.raises(ArgumentError, match="abnormal images come from 1 group"):
        metrics.bootstrap_interval([0, 0, 1, 1], [1, 2, 3, 4], ["a", "b", "c", "c"], seed=0)
