"""A permutation test for very many features of a few runs that were taught different things."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.int_]

# The null is computed in single precision, which takes half the time. Numbers that differ by less
# than this share are equal there but for rounding.
ROUNDING = 1e-5
# Squares within the labels below this share of all are rounding of a difference of large sums.
NOTHING_WITHIN = 1e-6
LEAST = 1e-30  # of s0, so that 0 stays 0 where most features are without a spread
VALUES_AT_ONCE = 2**20  # 4 MB, which a processor keeps at hand


@dataclass(frozen=True)
class Labelled:
    """What every run gives for every label, and which label each run has.

    Attributes:
        values: ``[n_runs, n_labels, n_features]``.
        labels: as indices ``[n_runs]``; a label may have no run.
    """

    values: Array
    labels: Ints


def can_be_tested(labels: Ints) -> bool:
    """Whether there are two labels, and two runs of one of them, to tell their spread by."""
    return 2 <= np.unique(labels).size < labels.size


def contrasts_test(groups: Sequence[Labelled], settings: Statistics) -> tuple[Array, Array]:
    """Which of very many features give more, or less, for a run's own label than for the others.

    The contrast of two runs of labels a and b: by how much the first gives more for a than for b,
    minus the same of the second. A feature's is the mean over unordered pairs of runs of different
    labels. That is a sum, over runs, of what each gives for its own label, so the contrasts under
    all relabelings are products of matrices.

    Significance analysis of microarrays (Tusher, Tibshirani and Chu 2001): d = contrast / (s + s0),
    s its standard error by the spread of runs of one label, pooled. s0, the same under every
    relabeling, is the median of s over the features, so that features of little variance do not
    come first (Tusher et al. search for it). Under the null all features of all groups share one
    distribution of |d|: that over all features and relabelings, the true one included. With N its
    size, p = (1 + number in it of at least |d|) / (1 + N), two-sided and never 0.

    A feature that is constant over the runs has contrast 0 and p = 1.

    Args:
        groups: features with one labelling each, of the same runs.

    Returns:
        contrast and p of the features of all groups in order ``[n_features]``.

    Raises:
        ValueError: where values are not finite, or their labels cannot be tested.
    """
    for group in groups:
        if not np.isfinite(group.values).all() or not can_be_tested(group.labels):
            raise ValueError(
                "finite values of two labels, of which one has two runs, got labels"
                f" {group.labels.tolist()}"
            )
    shares = [_shares(group) for group in groups]
    true = [
        _contrast_and_error(some, _one_hot(group.labels[None]))
        for some, group in zip(shares, groups, strict=True)
    ]
    contrast, error = (np.concatenate(parts, axis=1)[0] for parts in zip(*true, strict=True))
    fudge = max(float(np.median(error)), LEAST)
    statistic = _statistic(contrast, error, fudge)
    order = np.argsort(statistic)
    bounds = (statistic[order] * (1 - ROUNDING)).astype(np.float32)
    reached, size = np.zeros(bounds.size, dtype=np.int64), 0
    for some, group in zip(shares, groups, strict=True):
        for null in _null(some.astype(np.float32), group.labels, fudge, settings):
            reached += null.size - np.searchsorted(np.sort(null, axis=None), bounds)
            size += null.size
    p = np.empty(bounds.size)
    p[order] = (1 + reached) / (1 + size)
    return contrast, p


def _null(shares: Array, labels: Ints, fudge: float, settings: Statistics) -> Iterator[Array]:
    """|d| under every relabeling, of some features at a time ``[n_relabelings, n]``."""
    # Seeded alike in all groups: a relabeling moves a run's labels together.
    one_hot = _one_hot(relabelings(labels, settings.permutations, settings.seed))
    one_hot = one_hot.astype(shares.dtype)
    width = max(1, VALUES_AT_ONCE // len(one_hot))
    for start in range(0, shares.shape[2], width):
        parts = _contrast_and_error(shares[..., start : start + width], one_hot)
        yield _statistic(*parts, fudge)


def _shares(group: Labelled) -> Array:
    """What each run adds to the contrast if it has a label ``[n_labels, n_runs, n_features]``,
    of the labels that are there.

    Less what the run gives for all runs' labels on average, times runs / pairs of different labels;
    less the mean over runs, which changes no contrast and spares digits.
    """
    present, counts = np.unique(group.labels, return_counts=True)
    n_runs = group.labels.size
    values = group.values[:, present].astype(np.float64).swapaxes(0, 1)
    values = values - np.einsum("lrf,l->rf", values, counts / n_runs)
    n_pairs = (n_runs**2 - (counts**2).sum()) / 2
    shares: Array = (values - values.mean(1, keepdims=True)) * (n_runs / n_pairs)
    return shares


def _one_hot(orders: Ints) -> Array:
    """Which runs have each label that is there ``[n_relabelings, n_labels * n_runs]``."""
    return np.hstack([orders == label for label in np.unique(orders)]).astype(np.float64)


def _contrast_and_error(shares: Array, one_hot: Array) -> tuple[Array, Array]:
    """Contrasts and their standard errors ``[n_relabelings, n_features]`` each.

    The squares within the labels are all squares less those between.
    """
    n_labels, n_runs, _ = shares.shape
    within = one_hot @ (np.concatenate(shares) ** 2 * (1 - NOTHING_WITHIN))
    contrast = np.zeros_like(within)
    for own, some in zip(np.split(one_hot, n_labels, axis=1), shares, strict=True):
        of_label = own @ some
        contrast += of_label
        of_label *= of_label
        of_label /= own[0].sum()
        within -= of_label
    np.maximum(within, 0, out=within)
    within *= n_runs / (n_runs - n_labels)
    return contrast, np.sqrt(within, out=within)


def _statistic(contrast: Array, error: Array, fudge: float) -> Array:
    """|contrast| / (error + fudge)."""
    statistic = np.abs(contrast)
    statistic /= error + fudge
    return statistic


def relabelings(codes: Ints, limit: int, seed: int) -> Ints:
    """The distinct orders of the labels, ``[n_relabelings, n]``, if there are at most ``limit``.

    Otherwise ``limit`` of them: the given one, then random ones. The given one is always among
    them, without which a p-value could be 0 (Phipson and Smyth 2010).
    """
    counts = np.bincount(codes).tolist()
    if math.factorial(codes.size) // math.prod(map(math.factorial, counts)) <= limit:
        return np.array(list(_orders(counts)))
    drawn = np.tile(codes, (limit - 1, 1))
    return np.vstack([codes, np.random.default_rng(seed).permuted(drawn, axis=1)])


def _orders(counts: list[int]) -> Iterator[list[int]]:
    if not any(counts):
        yield []
    for code, left in enumerate(counts):
        if left:
            fewer = [*counts[:code], left - 1, *counts[code + 1 :]]
            for rest in _orders(fewer):
                yield [code, *rest]
