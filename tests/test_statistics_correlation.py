from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from circuitdrift.params import Statistics
from circuitdrift.statistics.correlation import (
    clustered_rank_interval,
    partial_rank_correlation,
    spearman,
)

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=2000, permutations=10000, seed=0)
QUICK = SETTINGS.model_copy(update={"bootstrap_samples": 300})
NONE = np.empty((5, 0))


def test_rank_correlation_worked_by_hand() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 * 15) = 0.8.
    assert spearman([1, 10, 100, 1000], [0, 2, 1, 3]) == pytest.approx(0.8)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([], []))


def test_rank_correlation_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 9, 200).astype(np.float32)
    b = a + rng.integers(0, 5, 200)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_a_partial_correlation_of_one_control_is_yules_formula() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=30)
    x, y = z + rng.normal(size=30), z + rng.normal(size=30)
    xy, xz, yz = spearman(x, y), spearman(x, z), spearman(y, z)
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_rank_correlation(x, y, z[:, None]) == pytest.approx(expected)


def test_a_partial_correlation_is_that_of_residuals() -> None:
    rng = np.random.default_rng(1)
    # Rounded, so that there are ties.
    x, y, *controls = rng.normal(size=(5, 40)).round(1)
    design = np.column_stack([np.ones(40), *(stats.rankdata(control) for control in controls)])
    residuals = []
    for variable in (x, y):
        ranks = stats.rankdata(variable)
        residuals.append(ranks - design @ np.linalg.lstsq(design, ranks)[0])
    expected = stats.pearsonr(*residuals).statistic
    assert partial_rank_correlation(x, y, np.column_stack(controls)) == pytest.approx(expected)


def test_what_the_controls_determine_has_no_correlation() -> None:
    x = np.random.default_rng(2).normal(size=(12, 3))
    assert np.isnan(partial_rank_correlation(x[:, 0], x[:, 1], np.exp(x[:, :1])))
    assert np.isnan(partial_rank_correlation(np.ones(12), x[:, 1], x[:, 2:]))
    # A control that stands there twice, or is constant, adds nothing.
    once = partial_rank_correlation(x[:, 0], x[:, 1], x[:, 2:])
    twice = np.column_stack([x[:, 2], x[:, 2], np.ones(12)])
    assert partial_rank_correlation(x[:, 0], x[:, 1], twice) == pytest.approx(once)


@pytest.mark.parametrize("n_controls", [0, 1])
def test_a_sample_of_clusters_is_the_correlation_of_its_repeated_rows(n_controls: int) -> None:
    # Of two clusters, a sample is one of them twice (1/4 each) or both: three values in all.
    x, y, *controls = np.random.default_rng(4).normal(size=(2 + n_controls, 16)).round(1)
    held = np.array(controls).reshape(n_controls, 16).T
    clusters = np.array(["a"] * 7 + ["b"] * 9)
    own = [
        partial_rank_correlation(
            np.tile(x[rows], 2), np.tile(y[rows], 2), np.tile(held[rows], (2, 1))
        )
        for rows in (clusters == "a", clusters == "b")
    ]
    interval = clustered_rank_interval(x, y, held, clusters, SETTINGS)
    assert interval.mean == pytest.approx(partial_rank_correlation(x, y, held))
    values = sorted([*own, interval.mean])
    assert (interval.low, interval.high) == pytest.approx((values[0], values[-1]))


def test_intervals_of_independent_lists_cover_zero() -> None:
    rng = np.random.default_rng(7)
    n_trials = 300
    runs = np.repeat(np.arange(12), 10)
    covered = 0
    for _ in range(n_trials):
        # Each run has a level of its own in x and in y, so its rows are not independent.
        x, y = rng.normal(size=(2, 12))[:, runs] + rng.normal(size=(2, 120))
        interval = clustered_rank_interval(x, y, rng.normal(size=(120, 2)), runs, QUICK)
        covered += interval.low <= 0 <= interval.high
    # A little narrow with 12 runs, as the percentile bootstrap is. Rows drawn as if they were
    # independent would cover 72 % of the time.
    assert 0.88 < covered / n_trials < 0.98


def test_samples_without_a_correlation_are_left_out() -> None:
    # In each run x is constant: only samples of both runs, half of all, have a correlation.
    x, y = [0.0, 0, 0, 1, 1, 1], [1.0, 2, 3, 3, 4, 5]
    interval = clustered_rank_interval(x, y, np.empty((6, 0)), [0] * 3 + [1] * 3, SETTINGS)
    expected = spearman(x, y)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((expected,) * 3)
    nothing = clustered_rank_interval([1.0] * 6, y, np.empty((6, 0)), [0, 1] * 3, SETTINGS)
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: partial_rank_correlation([1.0, 2], [1.0, 2], NONE[:2]), "at least 3 rows"),
        (lambda: partial_rank_correlation([1.0, 2, np.nan], [1.0, 2, 3], NONE[:3]), "finite"),
        (lambda: partial_rank_correlation([1.0, 2, 3], [1.0, 2], NONE[:3]), r"x \[n\], y \[n\]"),
        (lambda: partial_rank_correlation([1.0, 2, 3], [1.0, 2, 3], [1.0, 2, 3]), "n_controls"),
        (lambda: partial_rank_correlation([1.0, 2, 3], [1.0, 2, 3], [[1.0]] * 3), "at least 4"),
        (
            lambda: clustered_rank_interval([1, 2, 3], [1, 2, 3], NONE[:3], "aaa", QUICK),
            "a cluster",
        ),
        (lambda: clustered_rank_interval([1, 2, 3], [1, 2, 3], NONE[:3], [1] * 3, QUICK), "two"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
