"""Means over words, the units of the second round (docs/preregistration.md, Units)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Means that differ by less than this share of the largest value are equal but for rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def mean_over_words(values: ArrayLike, types: Sequence[str], confidence: float) -> Interval:
    """Mean over words ``[n_words]`` with its interval, which is not checked for its coverage."""
    numbers = np.asarray(values, dtype=np.float64)
    mean, half = float(numbers.mean()), float(half_widths(numbers, types, confidence))
    return Interval(mean, mean - half, mean + half)


def half_widths(values: Array, types: ArrayLike, confidence: float) -> Array:
    """Half the width of the interval of each mean ``[...]`` over words' values ``[..., n_words]``.

    For other words of these types: Student's t with the variance within types, pooled.

    Args:
        types: each word's ``[n_words]``.

    Raises:
        ValueError: where no type has two words.
    """
    from scipy import stats

    freedom = values.shape[-1] - np.unique(np.asarray(types)).size
    t = stats.t.ppf((1 + confidence) / 2, freedom)
    return np.asarray(t * np.sqrt(pooled_variance(values, types) / values.shape[-1]))


def pooled_variance(values: Array, types: ArrayLike) -> Array:
    """Variance within types ``[...]`` of words' values ``[..., n_words]``.

    It has words - types degrees of freedom.

    Raises:
        ValueError: where no type has two words.
    """
    names, codes = np.unique(np.asarray(types), return_inverse=True)
    freedom = codes.size - names.size
    if freedom == 0:
        raise ValueError(f"one type must have two words, got {list(names)}")
    means = values @ (np.eye(names.size)[codes] / np.bincount(codes))  # [..., n_types]
    return np.asarray(((values - means[..., codes]) ** 2).sum(-1) / freedom)


def sign_flip_p(values: ArrayLike) -> float:
    """One-sided exact p of a mean above 0: the share of all 2^n signs whose mean is as large.

    The signs as they are among them, so that six words reach 1/64.

    Args:
        values: what lies beyond the bound, for each word ``[n_words]``.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"signs of at least two finite values are turned, got {numbers}")
    # The sums of the two halves under all their signs, put together by counting: 24 words have
    # 16 million sums, and their halves 4,096 each.
    halves = [
        np.array(list(product((1.0, -1.0), repeat=half.size))) @ half
        for half in np.array_split(numbers, 2)
    ]
    first, second = halves[0], np.sort(halves[1])
    least = numbers.sum() - ROUNDING * np.abs(numbers).sum()
    reached = second.size - np.searchsorted(second, least - first)
    return float(reached.sum() / (first.size * second.size))


def one_sided_p(statistics: Array, observed: float) -> float:
    """Share of the ``statistics`` of all relabelings ``[n]`` that are at least the observed one."""
    slack = ROUNDING * max(1e-300, float(np.abs(statistics).max()))
    return float((statistics >= observed - slack).mean())
