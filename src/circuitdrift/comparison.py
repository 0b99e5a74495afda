"""How far two circuits of one prompt lie apart. Pure functions of arrays and sets."""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def weighted_jaccard(a: Array, b: Array) -> float:
    """Sum of minima over sum of maxima of two non-negative arrays; 1 where both are zero.

    Raises:
        ValueError: on shapes that differ or values below zero.
    """
    if a.shape != b.shape:
        raise ValueError(f"arrays of one shape are compared, got {a.shape} and {b.shape}")
    if (a < 0).any() or (b < 0).any():
        raise ValueError("weighted Jaccard takes non-negative values")
    union = np.maximum(a, b).sum()
    return float(np.minimum(a, b).sum() / union) if union > 0 else 1.0


def drift(a: Array, b: Array) -> float:
    """1 - weighted Jaccard of magnitudes: 0 where nothing moved, 1 where nothing is shared."""
    return 1 - weighted_jaccard(np.abs(a), np.abs(b))


def signed_drift(a: Array, b: Array) -> float:
    """As :func:`drift`, but an effect that changes its sign shares nothing with what it was."""

    def parts(x: Array) -> Array:
        return np.stack([np.maximum(x, 0), np.maximum(-x, 0)])

    return 1 - weighted_jaccard(parts(a), parts(b))


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two arrays, flattened; nan where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a.ravel(), b.ravel()).statistic)


@dataclass(frozen=True)
class Overlap:
    """Two sets: their Jaccard index, and what the second gained and lost."""

    jaccard: float
    added: int
    removed: int


def overlap(a: Set[Hashable], b: Set[Hashable]) -> Overlap:
    union = len(a | b)
    return Overlap(
        jaccard=len(a & b) / union if union else 1.0, added=len(b - a), removed=len(a - b)
    )


def aligned(a: dict[Hashable, float], b: dict[Hashable, float]) -> tuple[Array, Array]:
    """Two sparse vectors on the union of their keys; what one lacks is 0."""
    keys = sorted(a.keys() | b.keys())  # type: ignore[type-var]
    return (
        np.array([a.get(key, 0.0) for key in keys]),
        np.array([b.get(key, 0.0) for key in keys]),
    )


@dataclass(frozen=True)
class Change:
    """What moved, summed over the last axis of the effects, in logits.

    Attributes:
        gained, lost: rise and fall of the magnitudes ``[n_layers, n_positions]``, both >= 0.
        moved: sum of |difference| of the signed effects ``[n_layers, n_positions]``.
        before: sum of magnitudes in the first circuit ``[n_layers, n_positions]``.
    """

    gained: Array
    lost: Array
    moved: Array
    before: Array


def effect_change(a: Array, b: Array) -> Change:
    """Change from effects ``a`` to effects ``b``, both ``[n_layers, n_positions, d_mlp]``."""
    rise = np.abs(b) - np.abs(a)
    return Change(
        gained=np.maximum(rise, 0).sum(-1),
        lost=np.maximum(-rise, 0).sum(-1),
        moved=np.abs(b - a).sum(-1),
        before=np.abs(a).sum(-1),
    )
