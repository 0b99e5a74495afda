"""Exact tests that relabel runs: the second round's confirmatory ones (docs/preregistration.md).

Distances and similarities come as ``[n_words, n_runs, n_runs]``: a word's mean over its prompts.
Every test is one-sided and goes through all relabelings, the true one among them. Of more than
`MOST`, which the registered design has not, `DRAWN` are drawn beside the true one; their p is valid
too (Phipson and Smyth 2010).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitdrift.statistics.words import Array, one_sided_p

MOST = 200_000  # five seeds of three assignments have 126,126 partitions
DRAWN = 20_000


@dataclass(frozen=True)
class RelabelingTest:
    """An estimate, what each word gives ``[n_words]``, and the share of relabelings as large."""

    estimate: float
    by_word: Array
    p: float
    n_relabelings: int


def consistency_test(similarity: ArrayLike, in_group: Sequence[bool]) -> RelabelingTest:
    """Mean similarity of two runs of a group minus that of one in it and one outside it (RQ1.1).

    Relabelings put as many runs into the group as it has: 70 for four of eight.

    Args:
        similarity: symmetric ``[n_words, n_runs, n_runs]``; the diagonal is not looked at.
        in_group: ``[n_runs]``.
    """
    matrix, own = _symmetric(similarity), np.asarray(in_group, dtype=bool)
    n, size = own.size, int(own.sum())
    if matrix.shape[1] != n or size < 2 or size == n:
        raise ValueError(f"a group of at least two of {matrix.shape[1]} runs, got {in_group}")
    groups = _drawn(own.astype(float))
    if math.comb(n, size) <= MOST:
        members = np.array(list(combinations(range(n), size)))
        groups = np.zeros((len(members), n))
        np.put_along_axis(groups, members, 1, axis=1)
    within = np.einsum("gi,wij,gj->gw", groups, matrix, groups) / (size * (size - 1))
    between = np.einsum("gi,wij,gj->gw", groups, matrix, 1 - groups) / (size * (n - size))
    true = int(np.flatnonzero((groups == own).all(1))[0])
    return _result((within - between).mean(1), within - between, true)


def assignment_test(distance: ArrayLike, assignments: Sequence[str]) -> RelabelingTest:
    """Distance of runs of different assignments over that of runs of one: the ratio (RQ1.2).

    exp of the mean over words of the log of the ratio of mean distances. Relabelings are all
    partitions of the runs into groups of these sizes: 5,775 for twelve runs in three groups.

    Args:
        distance: symmetric ``[n_words, n_runs, n_runs]``, above 0 off the diagonal.
        assignments: what each run was taught ``[n_runs]``.

    Raises:
        ValueError: unless there are at least two assignments, of two runs or more and equally many.
    """
    matrix = _symmetric(distance)
    names, codes = np.unique(np.asarray(assignments), return_inverse=True)
    counts = np.bincount(codes)
    if len(names) < 2 or counts.min() < 2 or len(set(counts.tolist())) > 1:
        raise ValueError(f"assignments of two runs or more and equally many, got {assignments}")
    if codes.size != matrix.shape[1]:
        raise ValueError(f"{matrix.shape[1]} runs need as many assignments, got {codes.size}")
    ways = math.factorial(codes.size) // math.factorial(counts[0]) ** len(names)
    partitions = _drawn(codes)
    if ways // math.factorial(len(names)) <= MOST:
        partitions = np.array(list(_partitions(codes.size, int(counts[0]))))
    together = partitions[:, :, None] == partitions[:, None, :]
    n_within = codes.size * (int(counts[0]) - 1)
    n_between = codes.size * (codes.size - int(counts[0]))
    within = np.einsum("pij,wij->pw", together, matrix)  # the diagonal is 0
    between = (matrix.sum((1, 2)) - within) / n_between
    logs = np.log(between / (within / n_within))
    true = int(np.flatnonzero((together == (codes[:, None] == codes)).all((1, 2)))[0])
    return _result(np.exp(logs.mean(1)), np.exp(logs), true)


def step_test(distance: ArrayLike, assignments: Sequence[str]) -> RelabelingTest:
    """Distance of two runs at different checkpoints over that at the same one: the ratio (RQ1.4).

    Of different runs of one assignment; exp of the mean over words of the log of (mean distance of
    one run at t and one at t + 1) / (mean distance with both at t and both at t + 1). Relabelings
    exchange t and t + 1 within runs: 2^12 for twelve.

    Args:
        distance: ``[n_words, 2, n_runs, 2, n_runs]``: of a run at t or t + 1 from another at t or
            t + 1.
        assignments: ``[n_runs]``.
    """
    matrix, labels = np.asarray(distance, dtype=np.float64), np.asarray(assignments)
    n = labels.size
    if matrix.shape[1:] != (2, n, 2, n) or not np.isfinite(matrix).all():
        raise ValueError(f"finite distances [n_words, 2, {n}, 2, {n}], got {matrix.shape}")
    one, other = np.nonzero((labels[:, None] == labels) & ~np.eye(n, dtype=bool))
    if one.size == 0:
        raise ValueError(f"an assignment of two runs or more, got {assignments}")
    # The checkpoint of each run that is called t.
    first = np.zeros((DRAWN + 1, n), dtype=int)
    first[1:] = np.random.default_rng(0).integers(0, 2, (DRAWN, n))
    if 2**n <= MOST:
        first = np.array(list(product((0, 1), repeat=n)))
    a, b = first[:, one], first[:, other]
    logs = []
    for of_word in matrix:
        apart = of_word[a, one, 1 - b, other].mean(1)
        same = (of_word[a, one, b, other] + of_word[1 - a, one, 1 - b, other]).mean(1) / 2
        logs.append(np.log(apart / same))
    by_word = np.stack(logs, axis=1)  # [n_swaps, n_words]
    return _result(np.exp(by_word.mean(1)), np.exp(by_word), true=0)


def _result(estimates: Array, by_word: Array, true: int) -> RelabelingTest:
    observed = float(estimates[true])
    return RelabelingTest(observed, by_word[true], one_sided_p(estimates, observed), len(estimates))


def _drawn(labels: NDArray[Any]) -> NDArray[Any]:
    """The labels ``[n]`` and random orders of them ``[1 + DRAWN, n]``."""
    drawn = np.tile(labels, (DRAWN + 1, 1))
    drawn[1:] = np.random.default_rng(0).permuted(drawn[1:], axis=1)
    return drawn


def _symmetric(values: ArrayLike) -> Array:
    """``[n_words, n_runs, n_runs]`` with zeros on the diagonal, checked."""
    matrix = np.array(values, dtype=np.float64)
    if matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2]:
        raise ValueError(f"a matrix of runs for each word, got shape {matrix.shape}")
    diagonal = np.arange(matrix.shape[1])
    matrix[:, diagonal, diagonal] = 0
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.swapaxes(1, 2)):
        raise ValueError("the matrices must be symmetric and finite")
    return matrix


def _partitions(n: int, size: int) -> Iterator[NDArray[np.int_]]:
    """Group of each of ``n`` members, for all partitions into groups of ``size``.

    Each once: the first member without a group opens the next one.
    """

    def fill(groups: NDArray[np.int_], code: int) -> Iterator[NDArray[np.int_]]:
        free = np.flatnonzero(groups < 0)
        if free.size == 0:
            yield groups
            return
        for rest in combinations(free[1:].tolist(), size - 1):
            filled = groups.copy()
            filled[[free[0], *rest]] = code
            yield from fill(filled, code + 1)

    return fill(np.full(n, -1), 0)
