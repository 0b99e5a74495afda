"""Means over words, the units of the second round (docs/preregistration.md, Units)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from circuitdrift.statistics.intervals import Array, Interval, sample

# Means that differ by less than this share of the largest value are equal but for rounding.
ROUNDING = 1e-9


def mean_over_words(values: ArrayLike, types: Sequence[str], confidence: float) -> Interval:
    """Mean over words with its interval for other words of these types.

    Student's t with the variance within types, pooled: words - types degrees of freedom.

    Args:
        values: one number for each word ``[n_words]``.
        types: each word's ``[n_words]``.

    Raises:
        ValueError: where no type has two words, or a value is not finite.
    """
    from scipy import stats

    numbers, labels = sample(values, "values"), np.asarray(types)
    if labels.shape != numbers.shape:
        raise ValueError(f"every word has a value and a type, got {numbers.size}, {labels.size}")
    names, codes = np.unique(labels, return_inverse=True)
    freedom = numbers.size - names.size
    if freedom == 0:
        raise ValueError(f"one type must have two words, got {list(labels)}")
    means = np.bincount(codes, numbers) / np.bincount(codes)
    variance = float(((numbers - means[codes]) ** 2).sum()) / freedom
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance / numbers.size)
    mean = float(numbers.mean())
    return Interval(mean, float(mean - half), float(mean + half))


def ratio_over_words(ratios: ArrayLike, types: Sequence[str], confidence: float) -> Interval:
    """exp of the mean log of each word's ratio, with the interval of :func:`mean_over_words`.

    Raises:
        ValueError: where a ratio is not above 0.
    """
    numbers = sample(ratios, "ratios")
    if (numbers <= 0).any():
        raise ValueError(f"ratios must be above 0, got {numbers}")
    logs = mean_over_words(np.log(numbers), types, confidence)
    return Interval(*(float(np.exp(end)) for end in (logs.mean, logs.low, logs.high)))


def sign_flip_p(values: ArrayLike) -> float:
    """One-sided exact p of a mean above 0: the share of all 2^n signs whose mean is as large.

    The signs as they are among them, so that six words reach 1/64.

    Args:
        values: what lies beyond the bound, for each word ``[n_words]``.
    """
    numbers = sample(values, "values")
    signs = np.array(list(product((1.0, -1.0), repeat=numbers.size)))
    return one_sided_p(signs @ numbers, float(numbers.sum()))


def one_sided_p(statistics: Array, observed: float) -> float:
    """Share of the ``statistics`` of all relabelings ``[n]`` that are at least the observed one."""
    slack = ROUNDING * max(1e-300, float(np.abs(statistics).max()))
    return float((statistics >= observed - slack).mean())
