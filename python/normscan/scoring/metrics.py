"""How well scores and maps tell abnormal from normal. Float64, exact, in numpy alone.

Label 1 is abnormal, a higher score is more abnormal, and an image is called abnormal iff score > threshold. Single
functions raise ArgumentError where a number is undefined; `summary` gives None there instead. The tests hold them to
scikit-learn and scipy.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from normscan.errors import ArgumentError
from normscan.scoring.calibrate import clopper_pearson, needed, prediction_interval

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Groups = Sequence[Hashable]
Labels = npt.ArrayLike | Sequence[int | None]  # a None among them is an error, said in words

_BLOCK = 1 << 20  # anomalous pixels looked up at a time, which bounds the temporaries to some 50 MB


# ---- images -------------------------------------------------------------------------------------------------------


def auroc(labels: Labels, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that an abnormal image outscores a normal one, ties counting half."""
    abnormal, values = _both_classes("auroc", labels, scores)
    m, n = _class_sizes(abnormal)
    return float((_midranks(values)[abnormal].sum() - m * (m + 1) / 2) / (m * n))


def roc_curve(labels: Labels, scores: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """(false positive rate, true positive rate, threshold), each [distinct scores + 1], from (0, 0) to (1, 1).

    Point i is what `score > threshold[i]` gives; the last threshold is -inf. No point is dropped.
    """
    abnormal, values = _both_classes("roc_curve", labels, scores)
    true, false, distinct = _counts_from_above(abnormal, values)
    m, n = _class_sizes(abnormal)
    return np.append(0.0, false / n), np.append(0.0, true / m), np.append(distinct, -np.inf)


def average_precision(labels: Labels, scores: npt.ArrayLike) -> float:
    """Area under the precision-recall curve, by steps; to be read beside the prevalence, which is its chance value."""
    abnormal, values = _both_classes("average_precision", labels, scores)
    true, false, _ = _counts_from_above(abnormal, values)
    return float(np.sum(np.diff(true, prepend=0.0) * true / (true + false)) / true[-1])


def delong_interval(labels: Labels, scores: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the AUROC for independent images (DeLong 1988, by mid-ranks as Sun and Xu 2014), clipped to 0..1.

    Perfect separation has no spread, so its interval is (1, 1): read it as "not estimable", not as certainty.
    """
    abnormal, _ = _both_classes("delong_interval", labels, scores)
    m, n = _class_sizes(abnormal)
    if min(m, n) < 2:
        raise ArgumentError(f"delong_interval: found {n} normal and {m} abnormal images, expected at least 2 of each")
    below, above = placements(labels, scores)
    error = float(np.sqrt(below.var(ddof=1) / m + above.var(ddof=1) / n))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    area = float(below.mean())
    return max(0.0, area - reach), min(1.0, area + reach)


def placements(labels: Labels, scores: npt.ArrayLike) -> tuple[Array, Array]:
    """Of each abnormal image the share of normal ones below it, of each normal one the share of abnormal ones above it.

    Ties count half; the mean of either is the AUROC.
    """
    abnormal, values = _both_classes("placements", labels, scores)
    m, n = _class_sizes(abnormal)
    ranks = _midranks(values)
    below: Array = (ranks[abnormal] - _midranks(values[abnormal])) / n
    above: Array = 1 - (ranks[~abnormal] - _midranks(values[~abnormal])) / m
    return below, above


def bootstrap_interval(
    labels: Labels,
    scores: npt.ArrayLike,
    groups: Groups,
    seed: int,
    *,
    repeats: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the AUROC when whole groups (patients) are drawn with replacement.

    groups [n]: None marks an image of its own. Draws that miss a class are drawn again. Raises ArgumentError unless
    both classes occur in two groups or more.
    """
    abnormal, values = _both_classes("bootstrap_interval", labels, scores)
    members = group_indices(groups, len(values))
    for name, of_class in (("normal", ~abnormal), ("abnormal", abnormal)):
        found = len(np.unique(members[of_class]))
        if found < 2:
            raise ArgumentError(f"bootstrap_interval: {name} images come from {found} group, expected at least 2")
    _, place = np.unique(values, return_inverse=True)
    size = int(place.max()) + 1
    random = np.random.default_rng(seed)
    n_groups = int(members.max()) + 1
    areas: list[float] = []
    while len(areas) < repeats:
        weight = np.bincount(random.integers(n_groups, size=n_groups), minlength=n_groups)[members].astype(np.float64)
        positive = np.bincount(place[abnormal], weight[abnormal], size)
        negative = np.bincount(place[~abnormal], weight[~abnormal], size)
        pairs = positive.sum() * negative.sum()
        if pairs > 0:
            areas.append(float(positive @ (np.cumsum(negative) - negative / 2) / pairs))
    low, high = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def auroc_interval(
    labels: Labels, scores: npt.ArrayLike, groups: Groups | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the AUROC: DeLong where every group has one image, else the bootstrap over groups."""
    if groups is None or independent(groups, np.size(scores)):
        return delong_interval(labels, scores)
    return bootstrap_interval(labels, scores, groups, seed)


def sensitivity_specificity(labels: Labels, scores: npt.ArrayLike, threshold: float) -> tuple[float, float]:
    """Share of abnormal images with score > threshold, share of normal images with score <= threshold."""
    abnormal, values = _both_classes("sensitivity_specificity", labels, scores)
    called = values > threshold
    return float(called[abnormal].mean()), float((~called[~abnormal]).mean())


# ---- pixels -------------------------------------------------------------------------------------------------------


def pixel_auroc(maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None]) -> float:
    """AUROC over all pixels of all maps. maps, masks: [H,W] each, sizes may differ; a mask of None is all normal."""
    normal, anomalous, _ = _pixels(_together(maps, masks))
    _pixel_classes("pixel_auroc", normal, anomalous)
    return _area_up_to(1.0, normal, anomalous, np.full(len(anomalous), 1 / len(anomalous)))


def aupro(maps: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike | None], limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false positive rate of `limit`, divided by `limit`.

    Every 8-connected region of a mask weighs the same, whatever its size (Bergmann et al. 2021, the MVTec AD dataset).
    Exact: every distinct value is a threshold, linear in between. maps, masks as in `pixel_auroc`.
    """
    if not 0 < limit <= 1:
        raise ArgumentError(f"aupro: limit is {limit}, expected a false positive rate in (0, 1]")
    normal, anomalous, weights = _pixels(_together(maps, masks))
    _pixel_classes("aupro", normal, anomalous)
    return _area_up_to(limit, normal, anomalous, weights)


def _pixels(pairs: Iterable[tuple[Any, Any]]) -> tuple[Floats, Floats, Array]:
    """Sorted normal values, anomalous values, and the weights of the latter (1 / (region's size * number of regions)).

    Values keep the maps' own precision: 500 float32 maps of 256 x 256 take 130 MB, twice that while being joined.
    """
    import cv2

    normal: list[Floats] = []
    anomalous: list[Floats] = []
    weights: list[Array] = []
    regions = 0
    for index, (given, mask) in enumerate(pairs):
        values, inside = _map_and_mask(index, given, mask)
        normal.append(values[~inside])
        if not inside.any():
            continue
        count, components = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
        of_pixel = components[inside]
        anomalous.append(values[inside])
        weights.append(1 / np.bincount(of_pixel, minlength=count)[of_pixel])
        regions += count - 1
    below = np.concatenate(normal) if normal else np.zeros(0)
    below.sort()
    if not anomalous:
        return below, np.zeros(0), np.zeros(0)
    return below, np.concatenate(anomalous), np.concatenate(weights) / regions


def _together(*columns: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    end = object()
    for index, row in enumerate(itertools.zip_longest(*columns, fillvalue=end)):
        if any(part is end for part in row):
            raise ArgumentError(
                f"pixel metrics: labels, maps and masks differ in number; one of them ends after {index}"
            )
        yield row


def _map_and_mask(index: int, given: Any, mask: Any) -> tuple[Floats, Bools]:
    values = np.asarray(given)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float64)
    inside = np.zeros(values.shape, np.bool_) if mask is None else np.asarray(mask).astype(np.bool_)
    if values.ndim != 2 or values.shape != inside.shape:
        raise ArgumentError(
            f"pixel metrics: map {index} has shape {list(values.shape)} and its mask {list(inside.shape)}, "
            "expected the same [H,W]; restore the map to the picture's own size first"
        )
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ArgumentError(f"pixel metrics: map {index} has {bad} of {values.size} values that are not finite")
    return values, inside


def _pixel_classes(name: str, normal: Floats, anomalous: Floats) -> None:
    if not len(normal) or not len(anomalous):
        raise ArgumentError(f"{name}: found {len(normal)} normal and {len(anomalous)} anomalous pixels, expected both")


def _area_up_to(limit: float, normal: Floats, anomalous: Floats, weights: Array) -> float:
    """Area under the weighted ROC curve over false positive rates 0..limit, divided by limit.

    An anomalous value enters the curve while the rate goes from x0 (share of normals above it) to x1 (those equal to it
    included), so it adds its weight times the area beside that ramp: no curve is ever built. normal is sorted.
    """
    total = 0.0
    for start in range(0, len(anomalous), _BLOCK):
        order = start + np.argsort(anomalous[start : start + _BLOCK])  # ascending keys are found several times faster
        block = anomalous[order]
        x0 = 1 - np.searchsorted(normal, block, side="right") / len(normal)
        x1 = 1 - np.searchsorted(normal, block, side="left") / len(normal)
        entered = np.clip(limit - x0, 0, None)
        width = x1 - x0
        ramp = np.where(x1 <= limit, limit - (x0 + x1) / 2, entered**2 / (2 * np.where(width > 0, width, 1)))
        total += float(weights[order] @ ramp)
    return total / limit


# ---- the summary --------------------------------------------------------------------------------------------------


def summary(
    labels: Labels,
    scores: npt.ArrayLike,
    *,
    groups: Groups | None = None,
    threshold: float | None = None,
    target_specificity: float | None = None,
    n_calibration: int | None = None,
    maps: Iterable[npt.ArrayLike | None] | None = None,
    masks: Iterable[npt.ArrayLike | None] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All numbers of one test set, ready for JSON; what is undefined (one class, no masks, no threshold) is None.

    labels [n] 0 or 1, scores [n]; maps and masks: one [H,W] each an image, at the mask's resolution. The pixel numbers
    leave out images without a map and abnormal ones without a mask; normal images need none. `specificity_as_promised`:
    does the observed specificity lie in the prediction interval? Below it the promise is broken, above it the test
    normals are easier than those of the calibration. Raises ArgumentError for scores that are not finite.
    """
    abnormal, values = _checked("summary", labels, scores)
    m, n = _class_sizes(abnormal)
    both = m > 0 and n > 0
    alone = groups is None or independent(groups, len(values))
    interval = None
    if both:
        try:
            interval = list(auroc_interval(abnormal, values, groups, seed))
        except ArgumentError:  # too few images or groups for an interval; the area itself stands
            interval = None
    return {
        "image_auroc": auroc(abnormal, values) if both else None,
        "image_auroc_ci": interval,
        "image_auroc_ci_method": None if interval is None else "delong" if alone else "grouped_bootstrap",
        "auprc": average_precision(abnormal, values) if both else None,
        "prevalence": m / (m + n) if m + n else None,
        **_at_threshold(abnormal, values, threshold, target_specificity, n_calibration),
        **_pixel_numbers(abnormal, maps, masks),
    }


def _at_threshold(
    abnormal: Bools, values: Array, threshold: float | None, target: float | None, n_calibration: int | None
) -> dict[str, Any]:
    m, n = _class_sizes(abnormal)
    hit = passed = None
    if threshold is not None:
        called = values > threshold
        hit, passed = int(called[abnormal].sum()), int((~called[~abnormal]).sum())
    promised = None
    as_promised = None
    if passed is not None and n and target and n_calibration and n_calibration >= needed(target):
        promised = prediction_interval(n_calibration, n, target)
        as_promised = promised[0] <= passed / n <= promised[1]
    return {
        "sensitivity": hit / m if hit is not None and m else None,
        "sensitivity_ci": list(clopper_pearson(hit, m)) if hit is not None and m else None,
        "specificity": passed / n if passed is not None and n else None,
        "specificity_ci": list(clopper_pearson(passed, n)) if passed is not None and n else None,
        "specificity_prediction_interval": None if promised is None else list(promised),
        "specificity_as_promised": as_promised,
        "threshold": None if threshold is None else float(threshold),
        "target_specificity": None if target is None else float(target),
        "counts": {
            "normal": n,
            "abnormal": m,
            "true_positive": hit,
            "false_negative": None if hit is None else m - hit,
            "true_negative": passed,
            "false_positive": None if passed is None else n - passed,
        },
    }


def _pixel_numbers(
    abnormal: Bools, maps: Iterable[npt.ArrayLike | None] | None, masks: Iterable[npt.ArrayLike | None] | None
) -> dict[str, Any]:
    undefined = {"pixel_auroc": None, "aupro": None}
    if maps is None or masks is None:
        return undefined
    rows = _together(abnormal, maps, masks)
    kept = ((given, mask) for bad, given, mask in rows if given is not None and not (bad and mask is None))
    normal, anomalous, weights = _pixels(kept)
    if not len(normal) or not len(anomalous):
        return undefined
    equal = np.full(len(anomalous), 1 / len(anomalous))
    return {
        "pixel_auroc": _area_up_to(1.0, normal, anomalous, equal),
        "aupro": _area_up_to(0.3, normal, anomalous, weights),
    }


# ---- shared -------------------------------------------------------------------------------------------------------


def _checked(name: str, labels: Labels, scores: npt.ArrayLike) -> tuple[Bools, Array]:
    marks, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if marks.ndim != 1 or marks.shape != values.shape:
        shapes = f"labels of shape {list(marks.shape)} and scores of shape {list(values.shape)}"
        raise ArgumentError(f"{name}: found {shapes}, expected one of each per image, [n]")
    known = np.array([mark in (0, 1) for mark in marks.tolist()], np.bool_)
    if not known.all():
        raise ArgumentError(
            f"{name}: {int((~known).sum())} of {len(marks)} labels are neither 0 (normal) nor 1 (abnormal), "
            f"the first is {marks[~known][0]!r}; leave images of unknown label out"
        )
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nan or infinite:
        raise ArgumentError(
            f"{name}: of {len(values)} scores {nan} are NaN and {infinite} infinite, expected finite ones"
        )
    return marks.astype(np.bool_), values


def _both_classes(name: str, labels: Labels, scores: npt.ArrayLike) -> tuple[Bools, Array]:
    abnormal, values = _checked(name, labels, scores)
    m, n = _class_sizes(abnormal)
    if m == 0 or n == 0:
        raise ArgumentError(f"{name}: found {n} normal and {m} abnormal images, expected at least one of each")
    return abnormal, values


def _class_sizes(abnormal: Bools) -> tuple[int, int]:
    """(abnormal, normal)."""
    m = int(np.count_nonzero(abnormal))
    return m, len(abnormal) - m


def _midranks(values: Array) -> Array:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Array = np.cumsum(counts) - (counts - 1) / 2
    return middle[inverse]


def _counts_from_above(abnormal: Bools, values: Array) -> tuple[Array, Array, Array]:
    """(abnormal, normal) images at or above each distinct score, and these scores, descending."""
    distinct, place = np.unique(-values, return_inverse=True)
    weight = abnormal.astype(np.float64)
    true: Array = np.cumsum(np.bincount(place, weight, len(distinct)))
    false: Array = np.cumsum(np.bincount(place, 1 - weight, len(distinct)))
    return true, false, -distinct


def independent(groups: Groups, n: int) -> bool:
    """Whether each of n images is a group of its own."""
    return len(np.unique(group_indices(groups, n))) == n


def group_indices(groups: Groups, n: int) -> npt.NDArray[np.int64]:
    """Groups [n] as numbers from 0; None is a group of its own."""
    if len(groups) != n:
        raise ArgumentError(f"groups: found {len(groups)} for {n} scores, expected one per score")
    known: dict[Hashable, int] = {}
    keys = (("own", i) if group is None else ("named", group) for i, group in enumerate(groups))
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)
