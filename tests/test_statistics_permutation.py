from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from circuitdrift.params import Statistics
from circuitdrift.statistics.permutation import (
    between_within_test,
    many_features_test,
    paired_permutation_test,
    permutation_test,
    relabelings,
)

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


def test_between_within_worked_by_hand() -> None:
    # On a line at 0, 1 and 10, 11: within 1 and 1, between 10, 11, 9, 10: 10 - 1 = 9, as with
    # the labels exchanged. The other four relabelings have 10 and 10, or 11 and 9, within and a
    # mean of (1 + 1 + 20) / 4 between: 5.5 - 10 = -4.5.
    distance = distances(np.array([[0.0], [1], [10], [11]]))
    result = between_within_test(distance, ["a", "a", "b", "b"], SETTINGS)
    assert result.difference == pytest.approx(9)
    assert result.p == pytest.approx(2 / 6)
    assert result.n_permutations == 6


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


def by_the_book(a: Array, b: Array) -> Array:
    """p from the definition, one relabeling at a time."""
    values, n_a = np.concatenate([a, b]), len(a)

    def parts(rows: list[int]) -> tuple[Array, Array]:
        others = [row for row in range(len(values)) if row not in rows]
        x, y = values[rows], values[others]
        squares = ((x - x.mean(0)) ** 2).sum(0) + ((y - y.mean(0)) ** 2).sum(0)
        variance = squares / (len(values) - 2)
        return x.mean(0) - y.mean(0), np.sqrt(variance * (1 / len(x) + 1 / len(y)))

    difference, error = parts(list(range(n_a)))
    fudge = np.median(error)
    observed = difference / (error + fudge)
    null = []
    for rows in itertools.combinations(range(len(values)), n_a):
        difference, error = parts(list(rows))
        null.append(np.abs(difference / (error + fudge)))
    pooled = np.concatenate(null)
    reached = (pooled[None] >= np.abs(observed)[:, None] * (1 - 1e-9)).sum(1)
    return (1 + reached) / (1 + pooled.size)


def found(a: Array, b: Array, rate: float = 0.05) -> NDArray[np.bool_]:
    return many_features_test(a, b, SETTINGS)[1] <= rate


def test_one_feature_worked_by_hand() -> None:
    # a = 3, 5 and b = 0, 2: means 4 and 1, squares 2 + 2, variance 4/2, s = sqrt(2 (1/2 + 1/2)),
    # s0 the same, so d = 3 / (2 sqrt(2)). Of the 6 relabelings only the true one and its mirror
    # reach it, so p = (1 + 2) / (1 + 6).
    p, q = many_features_test([[3.0], [5]], [[0.0], [2]], SETTINGS)
    assert p == q == pytest.approx([3 / 7])


@pytest.mark.parametrize(("n_a", "n_b"), [(4, 4), (3, 4), (2, 5)])
def test_p_is_that_of_the_definition(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(n_a)
    a, b = rng.normal(size=(n_a, 30)) + rng.normal(size=30), rng.normal(size=(n_b, 30))
    p, q = many_features_test(a, b, SETTINGS)
    assert p == pytest.approx(by_the_book(a, b))
    assert q == pytest.approx(stats.false_discovery_control(p))


def test_features_that_cannot_be_tested_have_p_one_and_do_not_disturb_the_others() -> None:
    a, b = np.random.default_rng(2).normal(size=(2, 5, 50))
    alone, _ = many_features_test(a, b, SETTINGS)
    spoilt = np.full((5, 3), 0.1), np.full((5, 3), 0.1)
    spoilt[0][2, 1], spoilt[1][0, 2] = np.nan, np.inf
    p, q = many_features_test(np.hstack([a, spoilt[0]]), np.hstack([b, spoilt[1]]), SETTINGS)
    assert (p[:50] == alone).all()
    assert (p[50:] == 1).all()
    assert (q[50:] == 1).all()
    nothing, _ = many_features_test(np.ones((2, 3)), np.ones((2, 3)), SETTINGS)
    assert (nothing == 1).all()


def test_s0_keeps_features_of_little_variance_behind() -> None:
    a, b = np.random.default_rng(4).normal(size=(2, 5, 200))
    # A perfect but minute difference: Student's t would be 500 times that of the others.
    a[:, 0], b[:, 0] = 1e-6 + 1e-9 * a[:, 0], 1e-9 * b[:, 0]
    assert many_features_test(a, b, SETTINGS)[0][0] > 0.9


def test_under_the_null_p_is_uniform_and_findings_are_rare() -> None:
    rng = np.random.default_rng(5)
    n_trials, with_findings, shares = 200, 0, []
    for _ in range(n_trials):
        # As in neurons, scales differ by orders of magnitude.
        a, b = rng.normal(size=(2, 5, 400)) * rng.lognormal(0, 0.5, size=400)
        p, q = many_features_test(a, b, SETTINGS)
        shares.append(np.mean(p <= 0.05))
        with_findings += bool((q <= 0.05).any())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)
    assert with_findings / n_trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_trials)


def test_under_the_null_features_that_move_together_are_rarely_found() -> None:
    rng = np.random.default_rng(6)
    n_trials, with_findings = 200, 0
    for _ in range(n_trials):
        # A few things that differ from run to run move all features at once.
        moved = rng.normal(size=(10, 3)) @ rng.normal(size=(3, 400))
        values = moved + rng.normal(size=(10, 400))
        with_findings += bool(found(values[:5], values[5:]).any())
    assert with_findings / n_trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_trials)


def test_planted_features_are_found_at_the_stated_rate() -> None:
    rng = np.random.default_rng(7)
    n_planted, powers, false_shares = 40, [], []
    for _ in range(40):
        a, b = rng.normal(size=(2, 5, 1000))
        # Up in half of them, down in the others.
        a[:, : n_planted // 2] += 5
        a[:, n_planted // 2 : n_planted] -= 5
        some = found(a, b)
        powers.append(some[:n_planted].mean())
        false_shares.append(some[n_planted:].sum() / max(1, some.sum()))
    assert np.mean(powers) > 0.8
    error = np.std(false_shares) / np.sqrt(len(false_shares))
    assert np.mean(false_shares) <= 0.05 + 3 * error


def test_three_runs_a_side_cannot_reach_five_percent() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 3, 500))
    a[:, :10] += 1000
    p, q = many_features_test(a, b, SETTINGS)
    # Each of the ten is reached by the ten, under the true labels and under their mirror alone.
    least = (1 + 2 * 10) / (1 + 20 * 500)
    assert p[:10].max() == pytest.approx(least)
    assert q.min() == pytest.approx(least * 500 / 10)
    assert q.min() > 2 / 20


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
        (lambda: many_features_test(np.ones((5, 3)), np.ones((5, 4)), SETTINGS), "same features"),
        (lambda: many_features_test(np.ones(5), np.ones(5), SETTINGS), "n_runs, n_features"),
        (lambda: many_features_test(np.ones((1, 3)), np.ones((5, 3)), SETTINGS), "two runs"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
