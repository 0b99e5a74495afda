from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from circuitdrift.params import Statistics
from circuitdrift.statistics.permutation import Labelled, contrasts_test, relabelings

SETTINGS = Statistics(confidence=0.95, permutations=10000, coverage_samples=100, seed=0)
QUICK = SETTINGS.model_copy(update={"permutations": 500})
TWELVE = np.repeat([0, 1, 2], 4)
Array = NDArray[np.floating[Any]]


def noise(rng: np.random.Generator, labels: NDArray[Any], n_labels: int, n: int) -> Labelled:
    # As in neurons, scales differ by orders of magnitude.
    scale = rng.lognormal(0, 1, size=n)
    return Labelled(rng.normal(size=(labels.size, n_labels, n)) * scale, labels)


def test_one_feature_worked_by_hand() -> None:
    # Only label 0 is given anything for: 3, 5 by its own runs and 0, 2 by the others. Then the
    # contrast is the difference of means, 4 - 1, and s that of two samples: squares 2 + 2,
    # variance 4/2, s = sqrt(2 (1/2 + 1/2)), s0 the same, d = 3 / (2 sqrt(2)). Of the 6 relabelings
    # only the true one and its mirror reach it, so p = (1 + 2) / (1 + 6).
    values = np.zeros((4, 2, 1))
    values[:, 0, 0] = 3, 5, 0, 2
    contrast, p = contrasts_test([Labelled(values, np.array([0, 0, 1, 1]))], SETTINGS)
    assert contrast == pytest.approx([3])
    assert p == pytest.approx([3 / 7])


def by_the_book(group: Labelled, labels: NDArray[Any]) -> tuple[Array, Array]:
    """Contrast and standard error from their definitions, pair by pair."""
    values, runs = group.values, range(labels.size)
    pairs = [(i, j) for i, j in combinations(runs, 2) if labels[i] != labels[j]]

    def of_run(i: int, j: int) -> Array:
        return np.asarray(values[i, labels[i]] - values[i, labels[j]]) / len(pairs)

    contrast = np.sum([of_run(i, j) + of_run(j, i) for i, j in pairs], axis=0)
    parts = np.array([np.sum([of_run(i, j) for j in runs], axis=0) for i in runs])
    names = np.unique(labels)
    means = {name: parts[labels == name].mean(0) for name in names}
    squares = sum((parts[i] - means[labels[i]]) ** 2 for i in runs)
    return contrast, np.sqrt(labels.size / (labels.size - names.size) * squares)


@pytest.mark.parametrize(
    ("labels", "n_labels"),
    [([0, 0, 1, 1, 2, 2], 3), ([0, 1, 0, 2, 1, 0], 3), ([1, 1, 3, 3, 3], 4), ([0, 1, 0, 1], 2)],
)
def test_contrast_and_p_are_those_of_the_definition(labels: list[int], n_labels: int) -> None:
    rng = np.random.default_rng(len(labels))
    other = np.array(labels)[::-1].copy()
    groups = [noise(rng, np.array(labels), n_labels, 15), noise(rng, other, n_labels, 5)]
    true = [by_the_book(group, group.labels) for group in groups]
    contrasts, errors = (np.concatenate(parts) for parts in zip(*true, strict=True))
    fudge = np.median(errors)
    null = []
    for group in groups:
        for relabeled in relabelings(group.labels, 10**6, 0):
            contrast, error = by_the_book(group, relabeled)
            null.append(np.abs(contrast) / (error + fudge))
    pooled = np.concatenate(null)
    bounds = np.abs(contrasts) / (errors + fudge) * (1 - 1e-5)
    expected = (1 + (pooled[None] >= bounds[:, None]).sum(1)) / (1 + pooled.size)
    contrast, p = contrasts_test(groups, SETTINGS)
    assert contrast == pytest.approx(contrasts)
    assert p == pytest.approx(expected, rel=1e-9)


def test_what_all_runs_share_changes_nothing_and_a_constant_feature_has_p_one() -> None:
    rng = np.random.default_rng(1)
    group = noise(rng, TWELVE, 3, 50)
    shared = Labelled(group.values + 1e4 * rng.normal(size=(3, 50)), TWELVE)
    for ours, theirs in zip(
        contrasts_test([group], QUICK), contrasts_test([shared], QUICK), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-9)
    constant = Labelled(np.full((12, 3, 4), 0.1), TWELVE)
    contrast, p = contrasts_test([group, constant], QUICK)
    assert (p[:50] < 1).all()
    assert (contrast[50:] == 0).all()
    assert (p[50:] == 1).all()
    assert (contrasts_test([constant], QUICK)[1] == 1).all()


def test_s0_keeps_features_of_little_variance_behind() -> None:
    group = noise(np.random.default_rng(2), TWELVE, 3, 200)
    # A perfect but minute contrast: Student's t would be hundreds of times that of the others.
    group.values[:, :, 0] = 1e-9 * group.values[:, :, 0]
    group.values[np.arange(12), TWELVE, 0] += 1e-6
    assert contrasts_test([group], QUICK)[1][0] > 0.9


def test_without_a_contrast_p_is_uniform_and_features_are_rarely_found() -> None:
    rng = np.random.default_rng(3)
    shares, found = [], []
    for _ in range(200):
        # A few things that differ from run to run move all features at once.
        moved = np.tensordot(rng.normal(size=(12, 3)), rng.normal(size=(3, 3, 300)), axes=1)
        values = noise(rng, TWELVE, 3, 300).values + moved
        _, p = contrasts_test([Labelled(values, TWELVE)], QUICK)
        shares.append(np.mean(p <= 0.05))
        found.append((false_discovery_control(p) <= 0.05).any())
    error = np.std(shares) / np.sqrt(200)
    assert np.mean(shares) == pytest.approx(0.05, abs=3 * error)
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


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
    # Other codes of the same runs go the same ways.
    assert (relabelings(codes + 1, 11, 0) == drawn + 1).all()


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_bad_input_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="two labels"):
        contrasts_test([Labelled(np.ones((4, 4, 1)), np.array(labels))], SETTINGS)
    infinite = Labelled(np.full((4, 2, 1), np.inf), np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="finite values"):
        contrasts_test([infinite], SETTINGS)
