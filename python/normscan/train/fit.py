"""What a trained network still needs before it can score: Gaussian statistics, the scale of each term, the threshold.

Each comes from its own part of the data: statistics from train, scales from validation, threshold from calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from normscan.errors import InputError
from normscan.scoring.metrics import auroc
from normscan.scoring.scorer import Scorer
from normscan.scoring.spec import ScoringSpec
from normscan.scoring.statistics import GaussianFit, GaussianPositionsFit
from normscan.train.loader import Make, Pictures, batches, plain, planted


@torch.no_grad()
def outputs(network: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    """Named outputs of a batch x [N,C,H,W], as the engines give them."""
    device = next(network.parameters()).device
    found = network.eval()(torch.from_numpy(x).to(device))
    return {name: value.cpu().numpy() for name, value in found._asdict().items()}


def fit_statistics(network: nn.Module, spec: ScoringSpec, x_batches: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Mean and whitener of every Gaussian term, in one pass over the training images."""
    terms = [term for term in spec.terms if term.op == "gaussian"]
    if not terms:
        return {}
    fits = {term.stats: GaussianPositionsFit() if term.per == "position" else GaussianFit() for term in terms}
    for x in x_batches:
        found = outputs(network, x)
        for term in terms:
            fits[term.stats].update(found[term.of[0]])
    stats = {}
    for term in terms:
        fit = fits[term.stats]
        stats[f"{term.stats}.mean"] = fit.mean
        stats[f"{term.stats}.whitener"] = _whitener(fit, term.form)
    return stats


def _whitener(fit: GaussianFit | GaussianPositionsFit, form: str | None) -> np.ndarray:
    if isinstance(fit, GaussianPositionsFit) or form == "full":
        return fit.whitener()
    return fit.diagonal() if form == "diagonal" else fit.isotropic()


@dataclass(frozen=True)
class Summary:
    """Scores of many pictures; of their maps only the range, so that memory does not grow with the pixels."""

    terms: np.ndarray
    """[N,T]"""
    scores: np.ndarray
    """[N]"""
    map_median: np.ndarray
    """[N]"""
    map_max: np.ndarray
    """[N]"""

    @property
    def map_scale(self) -> tuple[float, float]:
        """Where colours begin and end: the usual value of a normal map, and what 95 % of normals never reach."""
        return float(np.median(self.map_median)), float(np.quantile(self.map_max, 0.95))


def score_all(network: nn.Module, scorer: Scorer, x_batches: Iterable[np.ndarray]) -> Summary:
    """Score every batch."""
    parts = []
    for x in x_batches:
        found = scorer.score(outputs(network, x))
        parts.append((found.terms, found.scores, np.median(found.maps, axis=(1, 2)), found.maps.max(axis=(1, 2))))
    return Summary(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def with_scales(spec: ScoringSpec, terms: np.ndarray) -> ScoringSpec:
    """The scale of each term: its standard deviation over validation normals, terms [N,T]; a declared one stays."""
    spread = terms.std(axis=0, ddof=1) if len(terms) > 1 else np.abs(terms).mean(axis=0)
    spread = np.array([s if t.scale is None else t.scale for t, s in zip(spec.terms, spread, strict=True)])
    if not np.all(np.isfinite(spread)) or np.any(spread <= 0):
        raise InputError(
            f"the terms' spread over {len(terms)} validation normals is {spread.tolist()}, expected positive numbers; "
            "are the validation images all alike?"
        )
    return spec.with_scales(spread.tolist())


PLANTED = 64
"""Anomalies that a validation plants at least: where pictures are few, several in each."""


@dataclass(frozen=True)
class Validation:
    """What validation normals, and anomalies planted in them or labelled ones beside them, say of a network."""

    auroc: float
    """Planted (or labelled) against normal; not to be confused with a test figure."""
    separation: float
    """Median rise of the score by planting, in standard deviations of the normal scores; it does not saturate. Of
    labelled pictures: the distance of the two medians."""
    labelled: bool
    spread: float
    scorer: Scorer
    scores: np.ndarray
    restoration: float | None = None
    """Mean distance of what is restored from the normal picture, of normals and planted ones alike: `Validator`."""

    @property
    def gain(self) -> float:
        """What training wants to be high."""
        return self.separation if self.restoration is None else -self.restoration


class Validator:
    """Scores a network as it stands, with statistics and scales fitted for the moment."""

    def __init__(
        self,
        spec: ScoringSpec,
        train: Pictures,
        validation: Pictures,
        *,
        abnormal: Pictures | None = None,
        seed: int,
        batch_size: int,
        plant: str = "mixed",
        restores: str | None = None,
    ) -> None:
        """`abnormal`: labelled validation pictures, of families that learn from labels; nothing is planted then.

        `plant` names who makes the planted ones, one of `data.pseudo.MAKERS`. `restores`: as of `Schedule`.
        """
        self.restores = restores
        self.spec, self._train, self._validation, self._abnormal = spec, train, validation, abnormal
        self._seed, self._batch_size, self._plant = seed, batch_size, plant
        # Prepared once where they fit: preparation does not depend on the network.
        self._prepared: dict[str, list[np.ndarray]] = {}

    def judged_by(self, spec: ScoringSpec | None, restores: str | None = None) -> Validator:
        """The same pictures, prepared once, scored by another spec of the same input; None: by this one."""
        if spec is None and restores == self.restores:
            return self
        other = Validator(
            spec or self.spec,
            self._train,
            self._validation,
            abnormal=self._abnormal,
            seed=self._seed,
            batch_size=self._batch_size,
            plant=self._plant,
            restores=restores,
        )
        other._prepared = self._prepared
        return other

    @property
    def _times(self) -> int:
        """Anomalies that are planted in each normal picture."""
        return -(-PLANTED // len(self._validation))

    def _batches(self, name: str, count: int, make: Make) -> Sequence[np.ndarray] | Iterable[np.ndarray]:
        size = self.spec.input
        if count * size.channels * size.height * size.width > 1 << 27:
            return (x for x, _ in batches(make, range(count), self._batch_size))
        if name not in self._prepared:
            self._prepared[name] = [x for x, _ in batches(make, range(count), self._batch_size)]
        return self._prepared[name]

    def __call__(self, network: nn.Module) -> Validation:
        """Statistics from train, scales and separation from validation."""
        size = self.spec.input
        stats = fit_statistics(network, self.spec, self._batches("train", len(self._train), plain(self._train, size)))
        make = plain(self._validation, size)
        count = len(self._validation)
        raw = score_all(network, Scorer(self.spec, stats), self._batches("normal", count, make))
        scorer = Scorer(with_scales(self.spec, raw.terms), stats)
        normal = score_all(network, scorer, self._batches("normal", count, make)).scores
        if self._abnormal is None:
            times = self._times
            abnormal = score_all(network, scorer, self._planted(times)).scores
            rise = float(np.median(abnormal - np.tile(normal, times)))
        else:
            known = plain(self._abnormal, size)
            abnormal = score_all(network, scorer, self._batches("abnormal", len(self._abnormal), known)).scores
            rise = float(np.median(abnormal) - np.median(normal))
        spread = float(normal.std(ddof=1)) if len(normal) > 1 else 1.0
        labels = np.repeat([0, 1], [count, len(abnormal)])
        return Validation(
            auroc=auroc(labels, np.concatenate([normal, abnormal])),
            separation=rise / max(spread, 1e-12),
            labelled=self._abnormal is not None,
            spread=spread,
            scorer=scorer,
            scores=normal,
            restoration=None if self.restores is None else self._restoration(network, self.restores),
        )

    def _planted(self, times: int) -> Sequence[np.ndarray] | Iterable[np.ndarray]:
        damaged = planted(self._validation, self.spec.input, seed=self._seed, plant=self._plant)
        return self._batches("planted", times * len(self._validation), damaged)

    def _restoration(self, network: nn.Module, name: str) -> float:
        """Mean |output - x| over pixels, half of it of normals x, half of what was planted in them; x as prepared."""
        count, times = len(self._validation), self._times
        make = plain(self._validation, self.spec.input)
        whole = self._batches("whole", times * count, lambda index: make(index % count))
        damaged = self._planted(times)
        found = [
            [np.abs(outputs(network, given)[name] - x).mean(axis=(1, 2, 3)) for given in (x, bad)]
            for x, bad in zip(whole, damaged, strict=True)
        ]
        return float(np.mean(np.concatenate(found, axis=1)))

    def labelled(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Validation batches with their labels, for `Family.finish`: normals first."""
        for label, pictures in enumerate((self._validation, self._abnormal)):
            if pictures is not None:
                make = plain(pictures, self.spec.input)
                for x, _ in batches(make, range(len(pictures)), self._batch_size):
                    yield x, np.full(len(x), label)

    def normals(self, most: int) -> Iterator[np.ndarray]:
        """At most so many training normals, evenly, as batches x."""
        chosen = [i for i, record in enumerate(self._train.records) if record.label == 0]
        places = np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int)
        order = np.asarray(chosen)[places]
        yield from (x for x, _ in batches(plain(self._train, self.spec.input), order, self._batch_size))

    def examples(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same, and, where no anomalies are labelled, those that are planted."""
        yield from self.labelled()
        if self._abnormal is None:
            for x in self._planted(self._times):
                yield x, np.ones(len(x), int)
