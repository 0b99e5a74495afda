from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from circuitdrift.comparison import effect_change, spearman, weighted_jaccard


def drift(a: list[float], b: list[float]) -> float:
    return effect_change(np.array([[a]]), np.array([[b]])).drift


def test_weighted_jaccard_worked_by_hand() -> None:
    # minima 1 + 0 + 2, maxima 2 + 3 + 2.
    assert weighted_jaccard(np.array([1.0, 0, 2]), np.array([2.0, 3, 2])) == pytest.approx(3 / 7)


def test_weighted_jaccard_of_nothing_with_nothing_is_one() -> None:
    assert weighted_jaccard(np.zeros(3), np.zeros(3)) == 1


def test_weighted_jaccard_refuses_negative_values_and_other_shapes() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        weighted_jaccard(np.array([-1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="one shape"):
        weighted_jaccard(np.zeros(2), np.zeros(3))


def test_a_change_of_sign_is_drift_only_for_signed_effects() -> None:
    change = effect_change(np.array([[[1.0, 1.0]]]), np.array([[[1.0, -1.0]]]))
    assert change.drift == 0
    # Parts: (1, 1 | 0, 0) and (1, 0 | 0, 1): minima 1, maxima 3.
    assert change.signed_drift == pytest.approx(2 / 3)


def test_drift_is_between_zero_and_one() -> None:
    assert drift([1, 0, -4], [1, 0, -4]) == 0
    assert drift([1, 0, -4], [0, 2, 0]) == 1
    assert drift([0, 0, 0], [0, 0, 0]) == 0


def test_drift_is_one_minus_weighted_jaccard() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 50)).astype(np.float32)
    change = effect_change(a, b)
    assert change.drift == pytest.approx(1 - weighted_jaccard(np.abs(a), np.abs(b)), rel=1e-6)
    parts = [np.stack([np.maximum(x, 0), np.maximum(-x, 0)]) for x in (a, b)]
    assert change.signed_drift == pytest.approx(1 - weighted_jaccard(*parts), rel=1e-6)


def test_effect_change_worked_by_hand() -> None:
    # Three neurons: 1 -> 3 (gained 2), -2 -> -1 (lost 1), 1 -> -1 (moved 2).
    change = effect_change(np.array([[[1.0, -2, 1]]]), np.array([[[3.0, -1, -1]]]))
    assert (change.gained.item(), change.lost.item()) == (2, 1)
    assert (change.moved.item(), change.before.item(), change.after.item()) == (5, 4, 5)


def test_effects_of_other_shapes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="one shape"):
        effect_change(np.zeros((2, 3, 4)), np.zeros((2, 1, 4)))


def test_spearman_sees_order_alone() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert math.isnan(spearman(np.ones(3), np.array([1.0, 2, 3])))
    assert math.isnan(spearman(np.empty(0), np.empty(0)))


def test_spearman_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 200).astype(float)
    b = a + rng.integers(0, 5, 200)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
