"""Rank correlations, with others held fixed, and with intervals over clusters of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdrift.statistics.intervals import Array, Interval

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

# A residual below this share of a variable's variance is rounding: the controls determine it.
NOTHING_LEFT = 1e-9
SAMPLES_AT_ONCE = 256


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation of two lists; nan where one of them is constant or empty."""
    left, right = np.asarray(x), np.asarray(y)
    if left.size == 0 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(np.corrcoef(_mean_ranks(left), _mean_ranks(right))[0, 1])


def partial_rank_correlation(x: ArrayLike, y: ArrayLike, controls: ArrayLike) -> float:
    """Spearman's correlation of x and y with the controls held fixed.

    All are ranked; the ranks of x and y are predicted by least squares from the ranked controls and
    a constant; what is left of both is correlated (Pearson). nan where nothing is left of one of
    them: it is constant, or the controls determine its ranks.

    Args:
        x, y: ``[n]`` each.
        controls: ``[n, n_controls]``; no columns give the plain rank correlation.
    """
    left, right, held = _variables(x, y, controls)
    return float(_weighted_partials(left, right, held, np.ones((1, left.size)))[0])


def clustered_rank_interval(
    x: ArrayLike, y: ArrayLike, controls: ArrayLike, clusters: ArrayLike, settings: Statistics
) -> Interval:
    """Partial rank correlation with its bootstrap interval over clusters of rows, such as runs.

    Rows of one run are not independent, so a sample draws whole runs with replacement, and ranks
    are taken anew within it (percentile bootstrap; Field and Welsh 2007). Samples in which the
    correlation is not defined, such as one run drawn every time, are left out. Where it is not
    defined on the rows themselves, all three numbers are nan.

    Args:
        x, y, controls: as of `partial_rank_correlation`.
        clusters: ``[n]``, the name of each row's cluster.

    Raises:
        ValueError: on fewer than two clusters.
    """
    left, right, held = _variables(x, y, controls)
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    if cluster.shape != left.shape or names.size < 2:
        raise ValueError(
            f"rows need a cluster each and two clusters or more, got {cluster.shape} clusters of"
            f" {names.size} names for {left.size} rows"
        )
    estimate = partial_rank_correlation(left, right, held)
    rng = np.random.default_rng(settings.seed)
    drawn = rng.multinomial(
        names.size, np.full(names.size, 1 / names.size), size=settings.bootstrap_samples
    )
    samples = np.concatenate(
        [
            _weighted_partials(left, right, held, drawn[i : i + SAMPLES_AT_ONCE, cluster])
            for i in range(0, len(drawn), SAMPLES_AT_ONCE)
        ]
    )
    samples = samples[np.isfinite(samples)]
    if np.isnan(estimate) or samples.size == 0:
        return Interval(estimate, float("nan"), float("nan"))
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _mean_ranks(values: NDArray[Any]) -> Array:
    """As scipy.stats.rankdata; whole numbers are counted, which takes a tenth of a sort's time."""
    if np.issubdtype(values.dtype, np.integer):
        keys = values - values.min()
    else:
        _, keys = np.unique(values, return_inverse=True)
    counts = np.bincount(keys)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[keys]
    return ranks


def _variables(*variables: ArrayLike) -> tuple[Array, Array, Array]:
    left, right, held = (np.asarray(variable, dtype=np.float64) for variable in variables)
    if left.ndim != 1 or right.shape != left.shape or held.ndim != 2 or len(held) != left.size:
        raise ValueError(
            "a rank correlation takes x [n], y [n] and controls [n, n_controls], got"
            f" {left.shape}, {right.shape} and {held.shape}"
        )
    if left.size < held.shape[1] + 3:
        raise ValueError(
            f"{held.shape[1]} controls need at least {held.shape[1] + 3} rows, got {left.size}"
        )
    if not all(np.isfinite(array).all() for array in (left, right, held)):
        raise ValueError("ranks are taken of finite values")
    return left, right, held


def _weighted_partials(x: Array, y: Array, controls: Array, weights: NDArray[Any]) -> Array:
    """The partial rank correlation ``[n_samples]`` with row i repeated weights[:, i] times.

    The residuals' covariance given the controls is S_ff - S_fc S_cc⁻¹ S_cf: what least squares
    leaves, without a fit for each sample.
    """
    ranks = np.stack([_weighted_ranks(v, weights) for v in (x, y, *controls.T)], axis=1)
    repeated = weights[:, None, :]
    ranks -= (ranks * repeated).sum(-1, keepdims=True) / repeated.sum(-1, keepdims=True)
    covariance = (ranks * repeated) @ ranks.transpose(0, 2, 1)
    free, mixed = covariance[:, :2, :2], covariance[:, :2, 2:]
    inverse = np.linalg.pinv(covariance[:, 2:, 2:], rcond=1e-10, hermitian=True)
    left = free - mixed @ inverse @ mixed.transpose(0, 2, 1)
    spread = np.diagonal(left, axis1=1, axis2=2)
    before = np.diagonal(free, axis1=1, axis2=2)
    defined = ((before > 0) & (spread > NOTHING_LEFT * before)).all(1)
    partial = np.full(len(weights), np.nan)
    np.divide(left[:, 0, 1], np.sqrt(np.abs(spread.prod(1))), out=partial, where=defined)
    return np.clip(partial, -1, 1)


def _weighted_ranks(values: Array, weights: NDArray[Any]) -> Array:
    """Midranks ``[n_samples, n]`` of each row among all, row i standing there weights[:, i] times.

    Equal to scipy.stats.rankdata of the repeated rows.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    here = np.add.reduceat(weights[:, np.argsort(place, kind="stable")], starts, axis=1)
    return (np.cumsum(here, axis=1) - here + (here + 1) / 2)[:, place]
