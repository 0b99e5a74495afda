"""Intervals of means. Pure functions; every random draw takes its seed from the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: ArrayLike, confidence: float, n_samples: int, seed: int) -> Interval:
    """Mean with its percentile bootstrap interval (Efron 1979; scipy.stats.bootstrap).

    A single value, or values that are all equal, have an interval of no width.

    Raises:
        ValueError: on no values, or values that are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("a mean needs at least one value, all finite")
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean)
    interval = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=n_samples,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high))


def bootstrap_difference(
    a: ArrayLike, b: ArrayLike, confidence: float, n_samples: int, seed: int
) -> Interval:
    """Mean of ``a`` minus mean of ``b``, two independent samples, with its bootstrap interval."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)

    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> Any:
        return x.mean(axis) - y.mean(axis)

    observed = float(left.mean() - right.mean())
    interval = stats.bootstrap(
        (left, right),
        difference,
        confidence_level=confidence,
        n_resamples=n_samples,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(observed, float(interval.low), float(interval.high))
