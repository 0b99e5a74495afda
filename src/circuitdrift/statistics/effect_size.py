"""How far two samples lie apart, in units that compare across measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


def hedges_g(a: ArrayLike, b: ArrayLike) -> float:
    """Difference of means (a - b) in pooled standard deviations, unbiased for small samples.

    Cohen's d times J = Γ(m/2) / (√(m/2) Γ((m-1)/2)) with m = n_a + n_b - 2 (Hedges 1981).
    Two samples without any spread give 0 where they are equal and an infinity where they are not.

    Raises:
        ValueError: where a sample has fewer than two values, or one that is not finite.
    """
    left, right = _sample(a, 2), _sample(b, 2)
    difference = float(left.mean() - right.mean())
    if np.ptp(left) == 0 and np.ptp(right) == 0:
        return float(np.copysign(np.inf, difference)) if left[0] != right[0] else 0.0
    freedom = left.size + right.size - 2
    squares = ((left - left.mean()) ** 2).sum() + ((right - right.mean()) ** 2).sum()
    correction = np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return float(correction * difference / np.sqrt(squares / freedom))


def cliffs_delta(a: ArrayLike, b: ArrayLike) -> float:
    """Share of pairs with a above b minus share with a below b, from -1 to 1 (Cliff 1993).

    Raises:
        ValueError: where a sample is empty or has a value that is not finite.
    """
    return float(np.sign(np.subtract.outer(_sample(a, 1), _sample(b, 1))).mean())


def _sample(values: ArrayLike, least: int) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < least or not np.isfinite(sample).all():
        raise ValueError(
            f"an effect size takes lists of at least {least} finite values, got {sample}"
        )
    return sample
