"""The orders in which labels may stand if they mean nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


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
