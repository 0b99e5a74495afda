from __future__ import annotations

import math

import numpy as np
import pytest

from circuitdrift.comparison import (
    aligned,
    drift,
    effect_change,
    overlap,
    signed_drift,
    spearman,
    weighted_jaccard,
)


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
    before, after = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    assert drift(before, after) == 0
    # Parts: (1, 1 | 0, 0) and (1, 0 | 0, 1): minima 1, maxima 3.
    assert signed_drift(before, after) == pytest.approx(2 / 3)


def test_drift_is_between_zero_and_one() -> None:
    a = np.array([1.0, 0, -4])
    assert drift(a, a) == 0
    assert drift(a, np.array([0, 2.0, 0])) == 1


def test_overlap_counts_what_was_added_and_removed() -> None:
    found = overlap({1, 2, 3}, {3, 4})
    assert (found.jaccard, found.added, found.removed) == (pytest.approx(1 / 4), 1, 2)
    assert overlap(set(), set()).jaccard == 1


def test_aligned_fills_what_one_side_lacks_with_zero() -> None:
    left, right = aligned({(0, 1): 2.0}, {(0, 0): 5.0, (0, 1): 3.0})
    assert left.tolist() == [0, 2]
    assert right.tolist() == [5, 3]


def test_spearman_sees_order_alone() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 100, 1000])) == pytest.approx(1)
    assert math.isnan(spearman(np.ones(3), np.array([1.0, 2, 3])))


def test_effect_change_worked_by_hand() -> None:
    # Three neurons: 1 -> 3 (gained 2), -2 -> -1 (lost 1), 1 -> -1 (moved 2).
    change = effect_change(np.array([[[1.0, -2, 1]]]), np.array([[[3.0, -1, -1]]]))
    assert (change.gained.item(), change.lost.item()) == (2, 1)
    assert (change.moved.item(), change.before.item()) == (5, 4)
