"""Means over seeds and prompts with their intervals, and the size of a difference.

The percentile bootstrap is narrow where there are few seeds, because five values drawn with
replacement vary by 4/5 of the variance they stand for. Simulated: where all variance is between
seeds, a 95 % interval of a mean over 5 seeds covers 82 % of the time, of a difference of two such
means 89 %, over 10 seeds 91 % and 93 %. Where it is between 24 prompts, it covers 93 %; where every
value varies by itself, more than 99 %, as both draws then count the same variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean, or another estimate, and its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def hierarchical_mean(values: ArrayLike, settings: Statistics) -> Interval:
    """Mean over seeds and prompts, with an interval for other seeds and other prompts.

    A sample draws seeds with replacement, then prompts with replacement. Every seed saw the same
    prompts (they are crossed with seeds, not nested in them), so one draw of prompts serves all
    seeds of a sample: an easy prompt is easy for all of them, and a draw of its own for each seed
    would average that away. The pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1).

    With one seed there are only prompts to draw: the interval then speaks of that seed alone.

    Args:
        values: ``[n_seeds, n_prompts]``.
    """
    matrix = _matrix(values, "values")
    rng = np.random.default_rng(settings.seed)
    seeds, prompts = (_draws(size, settings.bootstrap_samples, rng) for size in matrix.shape)
    return _interval(float(matrix.mean()), _means(matrix, seeds, prompts), settings.confidence)


def hierarchical_difference(a: ArrayLike, b: ArrayLike, settings: Statistics) -> Interval:
    """Mean of ``a`` minus mean of ``b``, measured on the same prompts, with its interval.

    A sample draws the seeds of each side apart and one set of prompts for both, so that what a
    prompt does to both sides cancels. A side of one seed is drawn over prompts alone: the interval
    then speaks of that seed alone. See `hierarchical_mean`.

    Args:
        a: ``[n_seeds_a, n_prompts]``.
        b: ``[n_seeds_b, n_prompts]``, the prompts in the order of a.

    Raises:
        ValueError: where a side is no finite matrix, or their numbers of prompts differ.
    """
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"a difference is taken on the same prompts, got {left.shape[1]} and {right.shape[1]}"
        )
    rng = np.random.default_rng(settings.seed)
    seeds_a, seeds_b, prompts = (
        _draws(size, settings.bootstrap_samples, rng) for size in (*left.shape[:1], *right.shape)
    )
    samples = _means(left, seeds_a, prompts) - _means(right, seeds_b, prompts)
    return _interval(float(left.mean() - right.mean()), samples, settings.confidence)


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike, settings: Statistics) -> Interval:
    """Mean of the numerators over mean of the denominators, resampled together, with its interval.

    Not the mean of ratios, which a single small denominator rules. Seeds and prompts are drawn as
    in `hierarchical_mean`, the same for both. Where the denominator's mean may be 0 at this
    confidence, no ratio can be excluded and the interval is ``(-inf, inf)``, as in Fieller (1954).

    Args:
        numerator, denominator: ``[n_seeds, n_prompts]`` each.

    Raises:
        ValueError: where they are no finite matrices of one shape, or the denominators' mean is 0.
    """
    above, below = _matrix(numerator, "numerator"), _matrix(denominator, "denominator")
    if above.shape != below.shape:
        raise ValueError(f"a ratio takes matrices of one shape, got {above.shape}, {below.shape}")
    if below.mean() == 0:
        raise ValueError("the denominators' mean is 0: their ratio is not defined")
    rng = np.random.default_rng(settings.seed)
    seeds, prompts = (_draws(size, settings.bootstrap_samples, rng) for size in above.shape)
    sign = np.sign(below.mean())
    tops, bottoms = (sign * _means(matrix, seeds, prompts) for matrix in (above, below))
    estimate = float(above.mean() / below.mean())
    beyond = bottoms <= 0
    if beyond.mean() > (1 - settings.confidence) / 2:
        return Interval(estimate, -np.inf, np.inf)
    ratios = np.copysign(np.inf, tops)
    np.divide(tops, bottoms, out=ratios, where=~beyond)
    return _interval(estimate, ratios, settings.confidence)


def _matrix(values: ArrayLike, name: str) -> Array:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(
            f"{name} must be finite numbers [n_seeds, n_prompts], got shape {matrix.shape}"
            f" with {int((~np.isfinite(matrix)).sum())} that are not finite"
        )
    return matrix


def _draws(size: int, n_samples: int, rng: np.random.Generator) -> Array:
    """How often each of ``size`` items stands in each sample: ``[n_samples, size]``."""
    return rng.multinomial(size, np.full(size, 1 / size), size=n_samples).astype(np.float64)


def _means(matrix: Array, seeds: Array, prompts: Array) -> Array:
    """The mean of each sample: ``[n_samples]``."""
    return np.einsum("sp,sp->s", seeds @ matrix, prompts) / matrix.size


def _interval(estimate: float, samples: Array, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    # No interpolation: between a finite and an infinite sample it would give nan.
    low = np.quantile(samples, tail, method="lower")
    high = np.quantile(samples, 1 - tail, method="higher")
    return Interval(estimate, float(low), float(high))


def hedges_g(a: ArrayLike, b: ArrayLike) -> float:
    """Difference of means (a - b) in pooled standard deviations, unbiased for small samples.

    Cohen's d times J = Γ(m/2) / (√(m/2) Γ((m-1)/2)) with m = n_a + n_b - 2 (Hedges 1981).
    Two samples without any spread give 0 where they are equal and an infinity where they are not.
    """
    left, right = sample(a, "a"), sample(b, "b")
    difference = float(left.mean() - right.mean())
    if np.ptp(left) == 0 and np.ptp(right) == 0:
        return float(np.copysign(np.inf, difference)) if left[0] != right[0] else 0.0
    freedom = left.size + right.size - 2
    squares = ((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum()
    gammas = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2))
    return gammas / math.sqrt(freedom / 2) * difference / math.sqrt(squares / freedom)


def sample(values: ArrayLike, name: str) -> Array:
    """Run-level numbers ``[n]``, checked."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a list of at least two finite values, got {numbers}")
    return numbers
