from __future__ import annotations

import math

import numpy as np
import pytest

from circuitdrift.node_sets import (
    chance_corrected,
    in_either,
    node_sets,
    random_jaccard,
    set_jaccard,
)

THRESHOLDS = (0.5, 0.7, 0.9)


def brute_force(effects: np.ndarray, share: float) -> set[int]:
    """Take nodes one by one, the strongest first, until they hold the share."""
    magnitude = np.abs(effects).ravel().astype(np.float64)
    chosen: set[int] = set()
    for node in sorted(range(magnitude.size), key=lambda node: (-magnitude[node], node)):
        if sum(magnitude[sorted(chosen)]) >= share * magnitude.sum():
            break
        chosen.add(node)
    return chosen


def test_node_sets_worked_by_hand() -> None:
    # Of 10 in total: 4 holds 0.4, 4 + 3 hold 0.7, with 2 it is 0.9.
    sets = node_sets(np.array([[[-4.0, 0, 1]], [[2, 3, 0]]]), THRESHOLDS)
    assert sets.levels.tolist() == [[[0, 3, 3]], [[2, 0, 3]]]
    assert sets.sizes.tolist() == [[1, 1], [1, 1], [1, 2]]
    assert sets.n_per_layer == 3


def test_of_equal_nodes_the_first_come_first() -> None:
    assert node_sets(np.ones((1, 1, 4)), (0.5, 1.0)).levels.ravel().tolist() == [0, 0, 1, 1]


def test_nodes_without_effect_are_in_no_set() -> None:
    assert node_sets(np.array([[[0.0, 1, 0]]]), (1.0,)).levels.ravel().tolist() == [1, 0, 1]
    nothing = node_sets(np.zeros((1, 1, 3)), (0.5, 1.0))
    assert nothing.sizes.sum() == 0
    assert set_jaccard(nothing, nothing).tolist() == [1, 1]


def test_thresholds_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascend"):
        node_sets(np.ones((1, 1, 2)), (0.9, 0.5))


def test_sets_and_their_overlap_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    # Whole numbers: many ties, and sums without rounding.
    a, b = rng.integers(-6, 7, size=(2, 3, 4, 5)).astype(np.float32)
    sets_a, sets_b = node_sets(a, THRESHOLDS), node_sets(b, THRESHOLDS)
    for index, share in enumerate(THRESHOLDS):
        one, other = brute_force(a, share), brute_force(b, share)
        assert set(np.flatnonzero(sets_a.levels <= index)) == one
        assert [int((sets_a.levels[layer] <= index).sum()) for layer in range(3)] == list(
            sets_a.sizes[index]
        )
        assert set_jaccard(sets_a, sets_b)[index] == pytest.approx(
            len(one & other) / len(one | other)
        )
    assert set(np.flatnonzero(in_either(sets_a, sets_b))) == one | other


def test_the_null_is_the_mean_overlap_of_random_sets() -> None:
    rng = np.random.default_rng(0)
    a, b, n_per_layer = np.array([[3, 10]]), np.array([[8, 2]]), 20

    def draw(sizes: np.ndarray) -> set[tuple[int, int]]:
        return {
            (layer, int(node))
            for layer, size in enumerate(sizes)
            for node in rng.choice(n_per_layer, size, replace=False)
        }

    built = []
    for _ in range(4000):
        one, other = draw(a[0]), draw(b[0])
        built.append(len(one & other) / len(one | other))
    found = random_jaccard(a, b, np.array(n_per_layer), n_sets=20000, seed=1)
    # The standard error of the mean of the sets that were built is about 0.001.
    assert found == pytest.approx(np.mean(built), abs=0.004)


def test_the_null_is_drawn_by_its_seed_for_many_comparisons_at_once() -> None:
    sizes = np.array([[[3, 10], [5, 12]], [[4, 4], [6, 6]]])
    found = random_jaccard(sizes, sizes, np.array([20, 30]), n_sets=50, seed=0)
    assert found.shape == (2, 2)
    assert np.array_equal(found, random_jaccard(sizes, sizes, np.array([20, 30]), 50, 0))
    assert not np.array_equal(found, random_jaccard(sizes, sizes, np.array([20, 30]), 50, 1))


def test_sets_of_all_nodes_overlap_wholly_by_chance() -> None:
    everything = np.array([[7, 7]])
    assert random_jaccard(everything, everything, np.array(7), n_sets=3, seed=0).tolist() == [1]


def test_corrected_overlap_is_zero_at_chance_and_one_at_the_ceiling() -> None:
    assert chance_corrected(0.2, null=0.2, ceiling=0.6) == 0
    assert chance_corrected(0.6, null=0.2, ceiling=0.6) == pytest.approx(1)
    assert chance_corrected(0.4, null=0.2, ceiling=0.6) == pytest.approx(0.5)
    assert math.isnan(chance_corrected(0.4, null=0.2, ceiling=math.nan))
    assert math.isnan(chance_corrected(0.4, null=0.2, ceiling=0.2))
