"""Exact tests over relabelings of runs: worked by hand, against brute force, and under the null."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitdrift.statistics.runs import DRAWN, assignment_test, consistency_test, step_test

Array = NDArray[np.float64]
FOUR_OF_EIGHT = [True] * 4 + [False] * 4
TWELVE = ["mapped"] * 4 + ["rotated-1"] * 4 + ["rotated-2"] * 4


def symmetric(values: Array) -> Array:
    return values + values.swapaxes(1, 2)


def random_distances(seed: int, n_words: int, n_runs: int) -> Array:
    rng = np.random.default_rng(seed)
    return symmetric(rng.uniform(0.1, 0.5, size=(n_words, n_runs, n_runs)))


def test_consistency_worked_by_hand() -> None:
    """Three runs of a group: pairs .9, .7, .5; with the one outside .1, .2, .3."""
    similarity = np.array([[[1, 0.9, 0.7, 0.1], [0.9, 1, 0.5, 0.2], [0.7, 0.5, 1, 0.3],
                            [0.1, 0.2, 0.3, 1]]])  # fmt: skip
    result = consistency_test(similarity, [True, True, True, False])
    assert result.estimate == pytest.approx(0.7 - 0.2)
    assert (result.p, result.n_relabelings) == (1 / 4, 4)


def test_consistency_goes_through_seventy_groups_of_four() -> None:
    similarity = random_distances(0, 3, 8)
    result = consistency_test(similarity, FOUR_OF_EIGHT)
    mean = similarity.mean(0)
    by_hand = []
    for group in combinations(range(8), 4):
        rest = [run for run in range(8) if run not in group]
        within = np.mean([mean[pair] for pair in combinations(group, 2)])
        by_hand.append(within - np.mean([mean[pair] for pair in product(group, rest)]))
    assert result.n_relabelings == len(by_hand) == 70
    assert result.estimate == pytest.approx(by_hand[0])
    assert result.p == np.mean(np.array(by_hand) >= by_hand[0] - 1e-12)
    assert result.by_word.shape == (3,)


def test_the_assignment_ratio_of_runs_that_lie_twice_as_far_apart() -> None:
    own = np.equal.outer(TWELVE, TWELVE)
    distance = np.where(own, 0.1, 0.2)[None].repeat(6, axis=0)
    result = assignment_test(distance, TWELVE)
    assert result.estimate == pytest.approx(2)
    assert result.by_word == pytest.approx(np.full(6, 2))
    assert (result.p, result.n_relabelings) == (1 / 5775, 5775)
    # The order of the runs and the names mean nothing.
    order = np.random.default_rng(0).permutation(12)
    again = assignment_test(distance[:, order][:, :, order], [TWELVE[run] for run in order])
    assert (again.estimate, again.p) == pytest.approx((2, 1 / 5775))


def test_the_assignment_ratio_is_a_mean_of_logs_over_words_and_its_p_brute_force() -> None:
    distance, names = random_distances(1, 2, 6), ["a", "a", "b", "b", "c", "c"]
    result = assignment_test(distance, names)

    def ratio(labels: tuple[str, ...]) -> float:
        logs = []
        for matrix in distance:
            pairs = list(combinations(range(6), 2))
            same = [matrix[pair] for pair in pairs if labels[pair[0]] == labels[pair[1]]]
            apart = [matrix[pair] for pair in pairs if labels[pair[0]] != labels[pair[1]]]
            logs.append(np.log(np.mean(apart) / np.mean(same)))
        return float(np.exp(np.mean(logs)))

    all_of_them = [ratio(labels) for labels in set(permutations(names))]
    assert len(all_of_them) == 6 * result.n_relabelings == 90
    assert result.estimate == pytest.approx(ratio(tuple(names)))
    assert result.p == pytest.approx(np.mean(np.array(all_of_them) >= result.estimate - 1e-12))


def test_the_step_ratio_worked_by_hand() -> None:
    """Two runs: .4 and .6 across the step, .2 before it and .3 after it."""
    distance = np.zeros((1, 2, 2, 2, 2))
    distance[0, 0, 0, 1, 1] = distance[0, 1, 1, 0, 0] = 0.4  # run 0 at t, run 1 at t + 1
    distance[0, 1, 0, 0, 1] = distance[0, 0, 1, 1, 0] = 0.6
    distance[0, 0, :, 0, :], distance[0, 1, :, 1, :] = 0.2, 0.3
    result = step_test(distance, ["mapped", "mapped"])
    assert result.estimate == pytest.approx(0.5 / 0.25)
    # With t and t + 1 of one run exchanged the two kinds change places; of both, nothing does.
    assert (result.p, result.n_relabelings) == (2 / 4, 4)


def test_the_step_test_finds_a_step_and_nothing_where_there_is_none() -> None:
    """A point for each run and checkpoint; a step moves all runs the same way."""
    rng = np.random.default_rng(2)
    points = rng.normal(size=(3, 2, 12, 20))

    def distances(points: Array) -> Array:
        flat = points.reshape(3, 24, 20)
        apart = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)
        return apart.reshape(3, 2, 12, 2, 12)

    none = step_test(distances(points), TWELVE)
    assert none.n_relabelings == 4096
    assert none.estimate == pytest.approx(1, abs=0.03)
    points[:, 1] += 1.0
    moved = step_test(distances(points), TWELVE)
    assert moved.estimate > 1.1
    assert moved.p == 8 / 4096  # exchanging all runs of an assignment changes nothing


@pytest.mark.parametrize("test", ["consistency", "assignment"])
def test_under_the_null_p_is_at_most_five_percent_as_often(test: str) -> None:
    """But for three standard errors."""
    small = []
    for seed in range(300):
        if test == "consistency":
            p = consistency_test(random_distances(seed, 2, 8), FOUR_OF_EIGHT).p
        else:
            names = ["a"] * 3 + ["b"] * 3 + ["c"] * 3
            p = assignment_test(random_distances(seed, 2, 9), names).p
        small.append(p <= 0.05)
    assert np.mean(small) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_of_too_many_relabelings_some_are_drawn() -> None:
    """Eight runs of three assignments have 1.6e9 partitions, and 24 runs 1.7e7 swaps."""
    labels = ["a"] * 8 + ["b"] * 8 + ["c"] * 8
    own = np.equal.outer(labels, labels)
    distance = random_distances(3, 2, 24) * np.where(own, 1, 1.5)
    ratio = assignment_test(distance, labels)
    assert (ratio.p, ratio.n_relabelings) == (1 / (DRAWN + 1), DRAWN + 1)
    gain = consistency_test(1 - distance, [label == "a" for label in labels])
    assert (gain.p, gain.n_relabelings) == (1 / (DRAWN + 1), DRAWN + 1)
    steps = np.stack([np.stack([distance, 2 * distance], 2), np.stack([2 * distance, distance], 2)])
    step = step_test(steps.transpose(1, 0, 2, 3, 4), labels)
    assert (step.estimate, step.n_relabelings) == (pytest.approx(2), DRAWN + 1)
    assert step.p < 0.001


N_NULLS = 300


def null_points(seed: int, n_runs: int, n_models: int = 1) -> Array:
    """Shares of effect ``[n_words, n_models, n_runs, n_nodes]`` of runs that differ by chance.

    What a run brings is common to its words and checkpoints; checkpoints differ by chance alone.
    """
    rng = np.random.default_rng(seed)
    run = rng.normal(size=(1, 1, n_runs, 40))
    word = rng.normal(size=(6, 1, 1, 40))
    raw = np.exp(word + 0.5 * run + 0.5 * rng.normal(size=(6, n_models, n_runs, 40)))
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def drifts(points: Array) -> Array:
    """Drift of every two circuits ``[n_words, n_models, n_runs, n_models, n_runs]``."""
    flat = points.reshape(len(points), -1, points.shape[-1])
    apart = np.abs(flat[:, :, None] - flat[:, None]).sum(-1) / 2
    return np.asarray(apart.reshape(*points.shape[:3], *points.shape[1:3]))


def null_p(test: str, seed: int) -> float:
    """p of a test at the study's sizes where there is nothing to find."""
    if test == "consistency":
        changes = null_points(seed, 8)[:, 0] - null_points(seed, 8).mean((1, 2))[:, None]
        unit = changes / np.linalg.norm(changes, axis=-1, keepdims=True)
        return consistency_test(unit @ unit.swapaxes(1, 2), FOUR_OF_EIGHT).p
    if test == "assignment":
        return assignment_test(drifts(null_points(seed, 12))[:, 0, :, 0], TWELVE).p
    four = null_points(seed, 12, 4)
    steps = [step_test(drifts(four[:, t : t + 2]), TWELVE).p for t in range(3)]
    return min(1.0, 3 * min(steps))  # the best of three counts three times


@pytest.mark.slow
@pytest.mark.parametrize("test", ["consistency", "assignment", "steps"])
def test_false_positives_at_the_study_s_sizes(test: str) -> None:
    """At most 5 % but for sampling error; the best of three steps may be found less often."""
    rate = np.mean([null_p(test, seed) <= 0.05 for seed in range(N_NULLS)])
    error = 3 * np.sqrt(0.05 * 0.95 / N_NULLS)
    assert rate <= 0.05 + error
    assert test == "steps" or rate >= 0.05 - error


def test_what_cannot_be_relabeled_is_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        assignment_test(random_distances(0, 1, 5), ["a", "a", "a", "b", "b"])
    with pytest.raises(ValueError, match="at least two"):
        consistency_test(random_distances(0, 1, 4), [True, False, False, False])
    with pytest.raises(ValueError, match="symmetric"):
        consistency_test(np.arange(32.0).reshape(2, 4, 4), [True, True, False, False])
    with pytest.raises(ValueError, match="two runs or more"):
        step_test(np.ones((1, 2, 2, 2, 2)), ["mapped", "shuffled"])
