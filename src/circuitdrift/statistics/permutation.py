"""Permutation tests: what a difference is worth if the labels of runs meant nothing.

All p-values are two-sided and never 0. A test goes through every distinct relabeling where there
are at most ``settings.permutations`` of them, and draws so many at random otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdrift.statistics.intervals import Array, sample

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

# Numbers that differ by less are equal but for the order of their sums.
ROUNDING = 1e-9
# Squares within the groups below this share of all are rounding of a difference of large sums.
NOTHING_WITHIN = 1e-12
VALUES_AT_ONCE = 2**20


@dataclass(frozen=True)
class TestResult:
    """An observed difference, its two-sided p and the number of relabelings behind that."""

    __test__ = False  # pytest takes it for a test otherwise

    difference: float
    p: float
    n_permutations: int


def permutation_test(a: ArrayLike, b: ArrayLike, settings: Statistics) -> TestResult:
    """Mean of ``a`` minus mean of ``b``, two independent samples of run-level numbers.

    p is twice the smaller tail (scipy.stats.permutation_test), so 5 against 5 runs reach 2/252.
    """
    left, right = sample(a, "a"), sample(b, "b")

    def difference(x: Array, y: Array, axis: int) -> Any:
        return x.mean(axis) - y.mean(axis)

    # About their centre, ties are told from differences however far from 0 the values lie.
    centre = np.concatenate([left, right]).mean()
    return _scipy_test((left - centre, right - centre), difference, "independent", settings)


def paired_permutation_test(differences: ArrayLike, settings: Statistics) -> TestResult:
    """The mean of paired differences against 0; under the null each may have either sign.

    p is twice the smaller tail (scipy.stats.permutation_test), so 5 pairs reach 2/32.
    """

    def mean(x: Array, axis: int) -> Any:
        return x.mean(axis)

    return _scipy_test((sample(differences, "differences"),), mean, "samples", settings)


def between_within_test(distance: ArrayLike, labels: ArrayLike, settings: Statistics) -> TestResult:
    """Mean distance of runs of different label minus that of runs of the same label.

    p is the share of relabelings whose difference is at least as large, of either sign (they
    average 0). 5 against 5 runs reach 2/252, because exchanging the two labels changes nothing.

    Args:
        distance: ``[n, n]``, symmetric; the diagonal is not looked at.
        labels: ``[n]``, the label of each run, such as its condition.

    Raises:
        ValueError: where distance is not symmetric and finite, a run has no label, all labels are
            equal, or no label stands twice.
    """
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    matrix = _distances(distance, codes.shape)
    counts = np.bincount(codes)
    n_within = int((counts * (counts - 1)).sum()) // 2
    n_between = codes.size * (codes.size - 1) // 2 - n_within
    if n_within == 0 or n_between == 0:
        raise ValueError(f"labels must differ, and one must stand twice, got {list(names[codes])}")
    relabeled = relabelings(codes, settings.permutations, settings.seed)
    within = np.zeros(len(relabeled))
    for code in range(names.size):
        members = (relabeled == code).astype(np.float64)
        within += ((members @ matrix) * members).sum(1) / 2
    differences = (matrix.sum() / 2 - within) / n_between - within / n_within
    own = np.flatnonzero((relabeled == codes).all(1))[0]
    observed = float(differences[own])
    extreme = np.abs(differences) >= abs(observed) - ROUNDING * np.abs(matrix).max()
    return TestResult(observed, float(extreme.mean()), len(relabeled))


def many_features_test(a: ArrayLike, b: ArrayLike, settings: Statistics) -> tuple[Array, Array]:
    """Which of very many features differ between two groups of a few runs.

    Significance analysis of microarrays (Tusher, Tibshirani and Chu 2001): each feature's
    d = (mean_a - mean_b) / (s + s0), s its pooled standard error. s0, the same under every
    relabeling, is the median of s over the features, so that features of little variance do not
    come first (Tusher et al. search for it). Under the null all features share one distribution of
    |d|: that over all features and relabelings, the true one included. With N its size,
    p = (1 + number in it of at least |d|) / (1 + N); q by scipy.stats.false_discovery_control.
    Few runs limit q, however large the differences: to 2/252 with 5 against 5 runs, to 2/20 with
    3 against 3.

    A feature that is constant over the runs, or not finite in one of them, has p = 1.

    Args:
        a, b: ``[n_runs, n_features]`` each.

    Returns:
        p and q ``[n_features]``; q is the least false discovery rate at which a feature is found
        (Benjamini-Hochberg).
    """
    from scipy.stats import false_discovery_control  # a second of processor time

    values, in_a = _runs_by_features(a, b)
    finite = np.isfinite(values).all(0)
    testable = finite & (np.ptp(np.where(finite, values, 0), axis=0) > 0)
    p = np.ones(values.shape[1])
    if testable.any():
        p[testable] = _pooled_p(values[:, testable], in_a, settings)
    return p, false_discovery_control(p)


def _scipy_test(
    samples: tuple[Array, ...], statistic: Any, permutation_type: str, settings: Statistics
) -> TestResult:
    from scipy import stats

    result = stats.permutation_test(
        samples,
        statistic,
        permutation_type=permutation_type,
        vectorized=True,
        n_resamples=settings.permutations,
        alternative="two-sided",
        rng=np.random.default_rng(settings.seed),
    )
    return TestResult(float(result.statistic), float(result.pvalue), result.null_distribution.size)


def _pooled_p(values: Array, in_a: NDArray[np.bool_], settings: Statistics) -> Array:
    """p of features that are neither constant nor without a value."""
    centred = values - values.mean(0)
    difference, error = _difference_and_error(centred, in_a[None])
    fudge = np.median(error)
    with np.errstate(divide="ignore"):  # separated without any spread, like half of all: infinite
        statistic = (difference / (error + fudge))[0]
    groups = relabelings((~in_a).astype(np.int_), settings.permutations, settings.seed) == 0
    times = 1
    if 2 * in_a.sum() == in_a.size and len(groups) == n_distinct(np.bincount(in_a)):
        # Exchanging two groups of one size turns the sign of d alone: half of them stand for all.
        groups, times = groups[groups[:, 0]], 2
    order = np.argsort(np.abs(statistic))
    bounds = np.abs(statistic)[order] * (1 - ROUNDING)
    reached = np.zeros(bounds.size, dtype=np.int64)
    width = max(1, VALUES_AT_ONCE // len(groups))
    for start in range(0, bounds.size, width):
        difference, error = _difference_and_error(centred[:, start : start + width], groups)
        with np.errstate(divide="ignore"):
            null = np.sort(np.abs(difference / (error + fudge)), axis=None)
        reached += null.size - np.searchsorted(null, bounds)
    p = np.empty(bounds.size)
    p[order] = (1 + times * reached) / (1 + times * len(groups) * bounds.size)
    return p


def _difference_and_error(centred: Array, in_a: NDArray[np.bool_]) -> tuple[Array, Array]:
    """mean_a - mean_b and its pooled standard error, ``[n_relabelings, n_features]`` each.

    The values are centred, so the sum of group b is minus that of group a, and the squares within
    the groups are all squares less those between.
    """
    n, n_a = in_a.shape[1], int(in_a[0].sum())
    per_run = 1 / n_a + 1 / (n - n_a)
    sums = in_a.astype(np.float64) @ centred
    squares = (centred**2).sum(0)
    within = squares - sums**2 * per_run
    within[within < NOTHING_WITHIN * squares] = 0
    return sums * per_run, np.sqrt(within * (per_run / (n - 2)))


def _distances(distance: ArrayLike, labels_shape: tuple[int, ...]) -> Array:
    matrix = np.array(distance, dtype=np.float64)
    if len(labels_shape) != 1 or matrix.shape != labels_shape * 2:
        raise ValueError(
            f"n labels go with distances [n, n], got shapes {labels_shape} and {matrix.shape}"
        )
    np.fill_diagonal(matrix, 0)
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T):
        raise ValueError("distances must be symmetric and finite")
    return matrix


def _runs_by_features(a: ArrayLike, b: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    matrices = left.ndim == right.ndim == 2
    if not matrices or left.shape[1:] != right.shape[1:] or left.size == 0:
        raise ValueError(
            f"a and b must be [n_runs, n_features] of the same features, got {left.shape} and"
            f" {right.shape}"
        )
    if min(len(left), len(right)) < 2:
        raise ValueError(f"each group needs two runs, got {len(left)} and {len(right)}")
    return np.concatenate([left, right]), np.arange(len(left) + len(right)) < len(left)


def relabelings(codes: NDArray[np.int_], limit: int, seed: int) -> NDArray[np.int_]:
    """The distinct orders of the labels, ``[n_relabelings, n]``, if there are at most ``limit``.

    Otherwise ``limit`` of them: the given one, then random ones. The given one is always among
    them, without which a p-value could be 0 (Phipson and Smyth 2010).
    """
    counts = np.bincount(codes)
    if n_distinct(counts) <= limit:
        return np.array(list(_orders(counts.tolist())))
    drawn = np.tile(codes, (limit - 1, 1))
    return np.vstack([codes, np.random.default_rng(seed).permuted(drawn, axis=1)])


def n_distinct(counts: NDArray[np.int_]) -> int:
    """The number of orders of labels of which code i stands counts[i] times."""
    ways = math.factorial(int(counts.sum()))
    return ways // math.prod(math.factorial(count) for count in counts.tolist())


def _orders(counts: list[int]) -> Iterator[list[int]]:
    if not any(counts):
        yield []
    for code, left in enumerate(counts):
        if left:
            fewer = [*counts[:code], left - 1, *counts[code + 1 :]]
            for rest in _orders(fewer):
                yield [code, *rest]
