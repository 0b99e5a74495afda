from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics.correlation import (
    clustered_rank_interval,
    partial_rank_correlation,
    rank_correlation,
)

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=2000, permutations=10000, seed=0)
QUICK = SETTINGS.model_copy(update={"bootstrap_samples": 300})
NONE = np.empty((5, 0))


def test_rank_correlation_worked_by_hand() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 (0 + 1 + 1 + 0) / (4 * 15) = 0.8.
    assert rank_correlation([1, 10, 100, 1000], [0, 2, 1, 3]) == pytest.approx(0.8)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_a_partial_correlation_of_one_control_is_yules_formula() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=30)
    x, y = z + rng.normal(size=30), z + rng.normal(size=30)
    xy, xz, yz = rank_correlation(x, y), rank_correlation(x, z), rank_correlation(y, z)
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


def test_without_controls_it_is_the_rank_correlation() -> None:
    x, y = [3.0, 1, 4, 1, 5], [2.0, 7, 1, 8, 2]
    assert partial_rank_correlation(x, y, NONE) == pytest.approx(rank_correlation(x, y))


def test_what_the_controls_determine_has_no_correlation() -> None:
    x = np.random.default_rng(2).normal(size=(12, 3))
    assert np.isnan(partial_rank_correlation(x[:, 0], x[:, 1], np.exp(x[:, :1])))
    assert np.isnan(partial_rank_correlation(np.ones(12), x[:, 1], x[:, 2:]))
    # A control that stands there twice, or is constant, adds nothing.
    once = partial_rank_correlation(x[:, 0], x[:, 1], x[:, 2:])
    twice = np.column_stack([x[:, 2], x[:, 2], np.ones(12)])
    assert partial_rank_correlation(x[:, 0], x[:, 1], twice) == pytest.approx(once)


def test_a_common_cause_is_held_fixed() -> None:
    rng = np.random.default_rng(3)
    cause = rng.normal(size=400)
    x, y = cause + rng.normal(0, 0.5, 400), cause + rng.normal(0, 0.5, 400)
    assert rank_correlation(x, y) > 0.7
    assert abs(partial_rank_correlation(x, y, cause[:, None])) < 0.15


def test_a_sample_of_clusters_is_the_correlation_of_its_repeated_rows() -> None:
    # Of two clusters, a sample is one of them twice (1/4 each) or both: three values in all.
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 12)).round(1)
    clusters = np.array(["a"] * 5 + ["b"] * 7)
    own = [rank_correlation(np.tile(x[rows], 2), np.tile(y[rows], 2))
           for rows in (clusters == "a", clusters == "b")]  # fmt: skip
    interval = clustered_rank_interval(x, y, np.empty((12, 0)), clusters, SETTINGS)
    assert interval.mean == pytest.approx(rank_correlation(x, y))
    values = sorted([*own, interval.mean])
    assert (interval.low, interval.high) == pytest.approx((values[0], values[-1]))


def test_repeated_rows_hold_their_controls_fixed_too() -> None:
    rng = np.random.default_rng(5)
    x, y, z = rng.normal(size=(3, 16)).round(1)
    clusters = np.repeat([0, 1], 8)
    own = [
        partial_rank_correlation(
            np.tile(x[rows], 2), np.tile(y[rows], 2), np.tile(z[rows], 2)[:, None]
        )
        for rows in (slice(0, 8), slice(8, 16))
    ]
    interval = clustered_rank_interval(x, y, z[:, None], clusters, SETTINGS)
    values = sorted([*own, partial_rank_correlation(x, y, z[:, None])])
    assert (interval.low, interval.high) == pytest.approx((values[0], values[-1]))


def test_a_planted_correlation_is_recovered_and_rows_of_a_run_do_not_narrow_it() -> None:
    rng = np.random.default_rng(6)
    runs = np.repeat(np.arange(10), 24)
    x = rng.normal(size=240)
    y = x + rng.normal(size=240)
    interval = clustered_rank_interval(x, y, rng.normal(size=(240, 3)), runs, SETTINGS)
    assert 0.5 < interval.low < interval.mean < interval.high < 0.85
    # Rows that only repeat their run's value hold ten observations.
    x, y = rng.normal(size=(2, 10))[:, runs]
    interval = clustered_rank_interval(x, y, np.empty((240, 0)), runs, SETTINGS)
    assert interval.high - interval.low > 0.5


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
    expected = rank_correlation(x, y)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((expected,) * 3)
    nothing = clustered_rank_interval([1.0] * 6, y, np.empty((6, 0)), [0, 1] * 3, SETTINGS)
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rank_correlation([1.0, 2], [1.0, 2]), "at least 3 rows"),
        (lambda: rank_correlation([1.0, 2, np.nan], [1.0, 2, 3]), "finite"),
        (lambda: rank_correlation([1.0, 2, 3], [1.0, 2]), r"x \[n\], y \[n\]"),
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
