from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics.permutation import (
    between_within_test,
    paired_permutation_test,
    permutation_test,
)
from circuitdrift.statistics.relabelings import relabelings

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=2000, permutations=10000, seed=0)
QUICK = SETTINGS.model_copy(update={"permutations": 199})
LABELS = ["mapped"] * 5 + ["shuffled"] * 5
Array = NDArray[np.float64]


def at_most_alpha(p_values: list[float]) -> bool:
    """Whether p <= 5 % in at most 5 % of the trials, but for three standard errors."""
    rate = np.mean(np.array(p_values) <= 0.05)
    return bool(rate <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(p_values)))


def distances(points: Array) -> Array:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_separated_runs_reach_the_least_p_that_there_is() -> None:
    result = permutation_test([6, 7, 8, 9, 10], [1, 2, 3, 4, 5], SETTINGS)
    assert result.difference == pytest.approx(5)
    assert result.p == pytest.approx(2 / 252)
    assert result.n_permutations == 252


def test_a_permutation_test_worked_by_hand() -> None:
    # a = {2, 4}, b = {1, 3}: sums of a over the six pairs of 1..4 are 3 4 5 5 6 7, observed 6.
    # At or above it: 2 of 6, twice that.
    result = permutation_test([2, 4], [1, 3], SETTINGS)
    assert (result.difference, result.n_permutations) == (1, 6)
    assert result.p == pytest.approx(4 / 6)


def test_ties_stay_ties_far_from_zero() -> None:
    # Sums of three of 1 2 4 1 3 2: 7 or more 10 times of 20, so twice that is all of them. Tenths
    # of these have no exact sums, less so far from zero.
    whole = np.array([1, 2, 4]), np.array([1, 3, 2])
    exact = permutation_test(*whole, SETTINGS)
    tenths = permutation_test(*(1e6 + sample / 10 for sample in whole), SETTINGS)
    assert tenths.p == pytest.approx(exact.p)
    assert permutation_test([0.1] * 5, [0.1] * 5, SETTINGS).p == 1


def test_many_values_draw_random_relabelings_and_never_p_zero() -> None:
    result = permutation_test(np.arange(100, 130), np.arange(30), SETTINGS)
    assert result.n_permutations == 10000
    assert result.p == pytest.approx(2 / 10001)
    assert result == permutation_test(np.arange(100, 130), np.arange(30), SETTINGS)


def test_a_paired_test_worked_by_hand() -> None:
    # Only + + + + + and - - - - - are as far from 0, of 32.
    result = paired_permutation_test([1, 2, 3, 4, 5], SETTINGS)
    assert (result.difference, result.n_permutations) == (3, 32)
    assert result.p == pytest.approx(2 / 32)
    # 3 - 1 = 2: sums of signed {3, 1} are 4 2 -2 -4, two of four at or above, twice that.
    assert paired_permutation_test([3, -1], SETTINGS).p == 1


def test_false_positives_of_both_tests_hold_their_level() -> None:
    rng = np.random.default_rng(0)
    independent, random, paired = [], [], []
    for _ in range(400):
        # Heavy tails and no relation: nothing normal is assumed.
        values = rng.standard_t(2, size=40)
        independent.append(permutation_test(values[:5], values[5:10], SETTINGS).p)
        random.append(permutation_test(values[:20], values[20:], QUICK).p)
        paired.append(paired_permutation_test(values[:8], SETTINGS).p)
    for p_values in (independent, random, paired):
        assert at_most_alpha(p_values)
        assert np.mean(np.array(p_values) <= 0.05) > 0.02


def test_planted_differences_are_found() -> None:
    rng = np.random.default_rng(1)
    found = [
        permutation_test(rng.normal(3, 1, 5), rng.normal(0, 1, 5), SETTINGS).p <= 0.05
        for _ in range(100)
    ]
    assert np.mean(found) > 0.9
    assert paired_permutation_test(rng.normal(1, 1, 24), SETTINGS).p < 0.01


def test_between_within_worked_by_hand() -> None:
    # On a line at 0, 1 and 10, 11: within 1 and 1, between 10, 11, 9, 10: 10 - 1 = 9, as with
    # the labels exchanged. The other four relabelings have 10 and 10, or 11 and 9, within and a
    # mean of (1 + 1 + 20) / 4 between: 5.5 - 10 = -4.5.
    distance = distances(np.array([[0.0], [1], [10], [11]]))
    result = between_within_test(distance, ["a", "a", "b", "b"], SETTINGS)
    assert result.difference == pytest.approx(9)
    assert result.p == pytest.approx(2 / 6)
    assert result.n_permutations == 6


def test_between_within_does_not_look_at_the_diagonal_or_the_names() -> None:
    distance = distances(np.random.default_rng(2).normal(size=(10, 3)))
    expected = between_within_test(distance, LABELS, SETTINGS)
    np.fill_diagonal(distance, 7)
    assert between_within_test(distance, LABELS, SETTINGS) == expected
    order = np.random.default_rng(3).permutation(10)
    shuffled = between_within_test(
        distance[np.ix_(order, order)], [int(LABELS[i] == "mapped") for i in order], SETTINGS
    )
    assert shuffled.difference == pytest.approx(expected.difference)
    assert shuffled.p == pytest.approx(expected.p)


def test_between_within_finds_groups_and_holds_its_level_without() -> None:
    rng = np.random.default_rng(4)
    planted = np.zeros((10, 4))
    planted[:5, 0] = 3
    nothing, apart = [], []
    for _ in range(400):
        points = rng.normal(size=(10, 4))
        nothing.append(between_within_test(distances(points), LABELS, SETTINGS).p)
        apart.append(between_within_test(distances(points + planted), LABELS, SETTINGS).p)
    assert at_most_alpha(nothing)
    assert np.mean(np.array(nothing) <= 0.05) > 0.02
    assert np.mean(np.array(apart) <= 0.05) > 0.9
    assert min(apart) == pytest.approx(2 / 252)


def test_between_within_of_equal_distances_finds_nothing() -> None:
    assert between_within_test(np.full((10, 10), 0.1), LABELS, SETTINGS).p == 1


def test_between_within_takes_more_groups_and_random_relabelings() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1, 2], 6)
    points = rng.normal(size=(18, 2)) + 6 * labels[:, None]
    result = between_within_test(distances(points), labels, QUICK)
    assert result.n_permutations == 199
    assert result.p == pytest.approx(1 / 199)


def test_relabelings_are_all_orders_once_or_random_ones_behind_the_given() -> None:
    codes = np.array([0, 1, 1, 2])
    every = relabelings(codes, 12, 0)
    assert every.shape == (12, 4)
    assert len({tuple(row) for row in every.tolist()}) == 12
    assert (np.sort(every, axis=1) == codes).all()
    drawn = relabelings(codes, 11, 0)
    assert drawn.shape == (11, 4)
    assert drawn[0].tolist() == codes.tolist()
    assert (np.sort(drawn, axis=1) == codes).all()
    assert (drawn == relabelings(codes, 11, 0)).all()
    assert (drawn != relabelings(codes, 11, 1)).any()


LOPSIDED = np.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: permutation_test([1.0], [1.0, 2], SETTINGS), "a must be a list of at least two"),
        (lambda: permutation_test([1.0, 2], [np.nan, 2], SETTINGS), "b must be .* finite"),
        (lambda: paired_permutation_test([1.0], SETTINGS), "differences must be"),
        (lambda: between_within_test(LOPSIDED, [0, 0, 1], SETTINGS), "symmetric"),
        (lambda: between_within_test(np.full((3, 3), np.nan), [0, 0, 1], SETTINGS), "finite"),
        (lambda: between_within_test(np.ones((3, 3)), [0, 1], SETTINGS), "shapes"),
        (lambda: between_within_test(np.ones((3, 3)), [0, 0, 0], SETTINGS), "must differ"),
        (lambda: between_within_test(np.ones((3, 3)), [0, 1, 2], SETTINGS), "stand twice"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
