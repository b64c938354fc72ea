"""Mean and covariance of normal features, in one pass, and the whitener that a `gaussian` term reads.

Float64 throughout, by the pairwise update of Chan, Golub and LeVeque (1979): parts that were fitted apart (batches,
workers) merge to what one pass over all of them gives, and a large mean does not swallow a small spread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from normscan import _native
from normscan.errors import ArgumentError

Array = npt.NDArray[np.float64]

_FLOAT32 = float(np.finfo(np.float32).eps) ** 2
_TINY = float(np.finfo(np.float64).tiny)


class GaussianFit:
    """One Gaussian over feature vectors of D channels; positions of a feature map are pooled (`position_shared`)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))  # sum of outer products of deviations from the mean

    def update(self, z: Any) -> None:
        """Take in z [N,D] or [N,C,H,W] (each position is one vector), any floating type; N = 0 changes nothing.

        Raises ArgumentError for another rank, another number of channels than before, and values that are not finite.
        """
        rows = _vectors(z)
        if len(rows) == 0:
            return
        mean = rows.mean(axis=0)
        deviations = rows - mean
        self._combine(len(rows), mean, deviations.T @ deviations)

    def merge(self, other: GaussianFit) -> None:
        """Take in everything that `other` has seen; `other` stays as it is."""
        if other._count:
            self._combine(other._count, other._mean, other._scatter)

    def _combine(self, count: int, mean: Array, scatter: Array) -> None:
        if self._count == 0:
            self._count, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        if len(mean) != len(self._mean):
            raise ArgumentError(f"GaussianFit: new vectors have {len(mean)} channels, those before {len(self._mean)}")
        total = self._count + count
        step = mean - self._mean
        self._scatter = self._scatter + scatter + np.outer(step, step) * (self._count * count / total)
        self._mean = self._mean + step * (count / total)
        self._count = total

    @property
    def count(self) -> int:
        """Vectors seen so far."""
        return self._count

    @property
    def mean(self) -> Array:
        """Mean [D]. Raises ArgumentError before the first vector."""
        if self._count == 0:
            raise ArgumentError("GaussianFit: no vector seen yet, so there is no mean; call update first")
        return self._mean.copy()

    @property
    def covariance(self) -> Array:
        """Unbiased covariance [D,D] (divided by count - 1). Raises ArgumentError below two vectors."""
        if self._count < 2:
            raise ArgumentError(f"GaussianFit: {self._count} vectors seen, a covariance needs at least 2")
        return self._scatter / (self._count - 1)

    def whitener(self, shrinkage: float = 0.01) -> Array:
        """Lower triangular W [D,D] with W S W^T = I: the inverse Cholesky factor of the shrunk covariance S.

        S = (1 - shrinkage) * covariance + shrinkage * mean variance * I, the target of Ledoit and Wolf (2004) with a
        constant share instead of their estimate: 0.01 (of PaDiM's order) keeps fewer vectors than channels invertible.
        Raises ArgumentError for a collapsed covariance, and for a singular one where shrinkage is 0.
        """
        shrunk = self._shrunk(shrinkage)
        spectrum = np.linalg.eigvalsh(shrunk)
        if spectrum[0] <= len(spectrum) * np.finfo(np.float64).eps * spectrum[-1]:
            raise ArgumentError(
                f"GaussianFit: the covariance of {self._count} vectors with {len(shrunk)} channels is singular "
                f"(eigenvalues {spectrum[0]:.3g} to {spectrum[-1]:.3g}); use a shrinkage above {shrinkage:g}, "
                "or more vectors"
            )
        factor = np.linalg.cholesky(shrunk)
        return np.tril(np.linalg.solve(factor, np.eye(len(factor))))

    def diagonal(self, shrinkage: float = 0.01) -> Array:
        """1 / standard deviation of every channel [D], of the shrunk variances (see `whitener`)."""
        variances = np.diag(self._shrunk(shrinkage))
        constant = np.flatnonzero(variances <= 0)
        if len(constant):
            raise ArgumentError(
                f"GaussianFit: {len(constant)} of {len(variances)} channels are constant (first: {constant[0]}); "
                f"use a shrinkage above {shrinkage:g}"
            )
        return 1 / np.sqrt(variances)

    def isotropic(self) -> Array:
        """1 / root mean variance over all channels, [1]."""
        return np.array([1 / np.sqrt(np.mean(np.diag(self._shrunk(0.0))))])

    def _shrunk(self, shrinkage: float) -> Array:
        if not 0 <= shrinkage <= 1:
            raise ArgumentError(f"GaussianFit: shrinkage is {shrinkage}, expected a share from 0 to 1")
        covariance = self.covariance
        variance = float(np.trace(covariance)) / len(covariance)
        # Networks answer in float32: a spread below its resolution at the mean is rounding, not information.
        noise = _FLOAT32 * float(np.mean(self._mean**2))
        if variance <= max(noise, _TINY):
            raise ArgumentError(
                f"GaussianFit: the covariance has collapsed: over {self._count} vectors the mean variance is "
                f"{variance:.3g}; the network gives the same features for every image, so train it again"
            )
        return (1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance))


class GaussianPositionsFit:
    """One Gaussian at every position of feature maps [N,C,H,W] (PaDiM, arXiv 2011.08785, section III-B).

    Triangles are packed, row after row: [H,W,C(C+1)/2], half of [H,W,C,C]. Memory: one such accumulator in float64 (127
    MB for 100 channels at 56 x 56) while images come in, however many; the result of `whitener` is a second one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Array = np.zeros((0, 0, 0))
        self._scatter: Array = np.zeros((0, 0, 0))

    def update(self, z: Any) -> None:
        """Take in z [N,C,H,W] float32 or float64; N = 0 changes nothing.

        Raises ArgumentError for another rank or size than before, and for values that are not finite.
        """
        values = np.asarray(z)
        if values.ndim != 4 or values.dtype not in (np.float32, np.float64):
            raise ArgumentError(
                f"GaussianPositionsFit: z is {values.dtype} of shape {list(values.shape)}, expected float32 or float64 "
                "[N,C,H,W]"
            )
        if len(values) == 0:
            return
        _require_finite("GaussianPositionsFit", values)
        self._begin(values.shape[1:])
        _native.gaussian_positions_fit(np.ascontiguousarray(values), self._count, self._mean, self._scatter)
        self._count += len(values)

    def merge(self, other: GaussianPositionsFit) -> None:
        """Take in everything that `other` has seen; `other` stays as it is."""
        if other._count == 0:
            return
        self._begin(other._mean.shape)
        total = self._count + other._count
        step = other._mean - self._mean
        lower = np.tril_indices(len(step))
        for y in range(step.shape[1]):  # a row at a time: the products need no second accumulator
            row = step[:, y].T
            products = row[:, lower[0]] * row[:, lower[1]]
            self._scatter[y] += other._scatter[y] + products * (self._count * other._count / total)
        self._mean += step * (other._count / total)
        self._count = total

    def _begin(self, shape: tuple[int, ...]) -> None:
        """Makes room for maps of `shape` [C,H,W] before the first one, and compares it with theirs after."""
        if self._count == 0:
            channels, height, width = shape
            self._mean = np.zeros(shape)
            self._scatter = np.zeros((height, width, channels * (channels + 1) // 2))
        elif shape != self._mean.shape:
            raise ArgumentError(
                f"GaussianPositionsFit: new maps are {list(shape)} (C, H, W), those before {list(self._mean.shape)}"
            )

    @property
    def count(self) -> int:
        """Images seen so far."""
        return self._count

    @property
    def mean(self) -> Array:
        """Mean [C,H,W]. Raises ArgumentError before the first image."""
        if self._count == 0:
            raise ArgumentError("GaussianPositionsFit: no image seen yet, so there is no mean; call update first")
        return self._mean.copy()

    @property
    def covariance(self) -> Array:
        """Unbiased covariances, packed [H,W,C(C+1)/2]. Raises ArgumentError below two images."""
        self._require_two()
        return self._scatter / (self._count - 1)

    def whitener(self, shrinkage: float = 0.01) -> Array:
        """Inverse Cholesky factors, packed [H,W,C(C+1)/2]; each is what `GaussianFit.whitener` gives for its position.

        Raises ArgumentError where a covariance has collapsed, and where one is singular and shrinkage is 0.
        """
        self._require_two()
        channels = len(self._mean)
        diagonal = np.arange(channels) * (np.arange(channels) + 3) // 2
        variance = self._scatter[:, :, diagonal].mean(axis=2) / (self._count - 1)
        collapsed = np.argwhere(variance <= np.maximum(_FLOAT32 * np.mean(self._mean**2, axis=0), _TINY))
        if len(collapsed):
            raise ArgumentError(
                f"GaussianPositionsFit: the covariance has collapsed at {len(collapsed)} of {variance.size} positions "
                f"(first: row {collapsed[0][0]}, column {collapsed[0][1]}): over {self._count} images its mean "
                f"variance is {variance[tuple(collapsed[0])]:.3g}; the network gives the same features for every image"
            )
        factors = np.empty_like(self._scatter)
        _native.gaussian_positions_whitener(self._scatter, factors, count=self._count, shrinkage=shrinkage)
        return factors

    def _require_two(self) -> None:
        if self._count < 2:
            raise ArgumentError(f"GaussianPositionsFit: {self._count} images seen, a covariance needs at least 2")


def _vectors(z: Any) -> Array:
    """z [N,D] or [N,C,H,W] -> finite float64 rows [N or N*H*W, D]."""
    values = np.asarray(z)
    if values.ndim not in (2, 4) or not np.issubdtype(values.dtype, np.floating):
        raise ArgumentError(
            f"GaussianFit: z is {values.dtype} of shape {list(values.shape)}, expected floating [N,D] or [N,C,H,W]"
        )
    rows = values if values.ndim == 2 else np.moveaxis(values, 1, -1).reshape(-1, values.shape[1])
    _require_finite("GaussianFit", values)
    return rows.astype(np.float64)


def _require_finite(who: str, values: npt.NDArray[Any]) -> None:
    """Channels are axis 1."""
    bad = ~np.isfinite(values)
    if bad.any():
        channel = int(np.argwhere(bad)[:, 1].min())
        raise ArgumentError(
            f"{who}: {int(bad.sum())} of {bad.size} feature values are not finite (first in channel {channel}); "
            "a network or image that gives NaN or infinity has no Gaussian"
        )
