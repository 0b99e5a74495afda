from __future__ import annotations

import numpy as np
import pytest

from circuitdrift.statistics import bootstrap_difference, bootstrap_mean


def test_equal_values_have_no_width() -> None:
    interval = bootstrap_mean([2.0, 2, 2], 0.95, 100, 0)
    assert (interval.mean, interval.low, interval.high) == (2, 2, 2)


def test_no_values_and_nan_are_refused() -> None:
    for values in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="at least one value"):
            bootstrap_mean(values, 0.95, 100, 0)


def test_the_same_seed_draws_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert bootstrap_mean(values, 0.95, 200, 1) == bootstrap_mean(values, 0.95, 200, 1)
    assert bootstrap_mean(values, 0.95, 200, 1) != bootstrap_mean(values, 0.95, 200, 2)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    n_trials = 300
    covered = sum(
        interval.low <= 1 <= interval.high
        for interval in (
            bootstrap_mean(rng.normal(1, 2, size=40), 0.9, 300, trial) for trial in range(n_trials)
        )
    )
    # The percentile bootstrap is a little narrow at 40 values; three standard errors beside.
    assert covered / n_trials == pytest.approx(0.89, abs=3 * np.sqrt(0.9 * 0.1 / n_trials))


def test_a_difference_of_means_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(1)
    apart = bootstrap_difference(rng.normal(2, 1, 50), rng.normal(0, 1, 30), 0.95, 500, 0)
    assert 1 < apart.low < apart.mean < apart.high < 3
    same = bootstrap_difference(rng.normal(0, 1, 50), rng.normal(0, 1, 30), 0.95, 500, 0)
    assert same.low < 0 < same.high
