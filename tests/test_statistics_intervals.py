from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    hierarchical_difference,
    hierarchical_mean,
    ratio_of_means,
)

SETTINGS = Statistics(confidence=0.95, bootstrap_samples=2000, permutations=10000, seed=0)
QUICK = SETTINGS.model_copy(update={"bootstrap_samples": 500})
Array = NDArray[np.float64]


def share_covered(intervals: list[Interval], truth: float) -> float:
    return sum(interval.low <= truth <= interval.high for interval in intervals) / len(intervals)


def sampling_error(rate: float, n_trials: int) -> float:
    return float(3 * np.sqrt(rate * (1 - rate) / n_trials))


def crossed(
    rng: np.random.Generator, between_seeds: float, between_prompts: float, noise: float
) -> Array:
    """Values about 1 of five seeds on 24 prompts, with these standard deviations."""
    return (
        1
        + between_seeds * rng.normal(size=(5, 1))
        + between_prompts * rng.normal(size=(1, 24))
        + noise * rng.normal(size=(5, 24))
    )


def test_equal_values_have_no_width() -> None:
    interval = bootstrap_mean([2.0, 2, 2], 0.95, 100, 0)
    assert (interval.mean, interval.low, interval.high) == (2, 2, 2)
    assert hierarchical_mean([[2.0, 2], [2, 2]], SETTINGS) == Interval(2, 2, 2)


def test_no_values_and_nan_are_refused() -> None:
    for values in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="at least one value"):
            bootstrap_mean(values, 0.95, 100, 0)
    for pair in (([1.0], [1.0, 2]), ([1.0, 2], [float("nan"), 2])):
        with pytest.raises(ValueError, match="at least two values on each side"):
            bootstrap_difference(*pair, 0.95, 100, 0)


def test_the_same_seed_draws_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert bootstrap_mean(values, 0.95, 200, 1) == bootstrap_mean(values, 0.95, 200, 1)
    assert bootstrap_mean(values, 0.95, 200, 1) != bootstrap_mean(values, 0.95, 200, 2)
    other = SETTINGS.model_copy(update={"seed": 1})
    matrix = values.reshape(4, 5)
    assert hierarchical_mean(matrix, SETTINGS) == hierarchical_mean(matrix, SETTINGS)
    assert hierarchical_mean(matrix, SETTINGS) != hierarchical_mean(matrix, other)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    n_trials = 300
    covered = share_covered(
        [bootstrap_mean(rng.normal(1, 2, size=40), 0.9, 300, trial) for trial in range(n_trials)], 1
    )
    # The percentile bootstrap is a little narrow at 40 values.
    assert covered == pytest.approx(0.89, abs=sampling_error(0.9, n_trials))


def test_a_difference_of_means_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(1)
    apart = bootstrap_difference(rng.normal(2, 1, 50), rng.normal(0, 1, 30), 0.95, 500, 0)
    assert 1 < apart.low < apart.mean < apart.high < 3
    same = bootstrap_difference(rng.normal(0, 1, 50), rng.normal(0, 1, 30), 0.95, 500, 0)
    assert same.low < 0 < same.high


def test_two_seeds_and_one_prompt_give_the_three_means_that_can_be_drawn() -> None:
    # Seeds 0 and 4 are drawn as (0, 0), (0, 4), (4, 0), (4, 4): means 0, 2, 2, 4, a quarter at
    # each end, so a 60 % interval still reaches the ends and a 40 % one does not.
    values = [[0.0], [4.0]]
    wide = SETTINGS.model_copy(update={"confidence": 0.6})
    narrow = SETTINGS.model_copy(update={"confidence": 0.4})
    assert hierarchical_mean(values, wide) == Interval(2, 0, 4)
    assert hierarchical_mean(values, narrow) == Interval(2, 2, 2)


def test_a_draw_of_prompts_is_common_to_all_seeds() -> None:
    # Only prompts vary. Drawn anew for each of 50 seeds, they would average to a width near 0.
    values = np.tile([0.0, 4.0], (50, 1))
    assert hierarchical_mean(values, SETTINGS) == Interval(2, 0, 4)


def test_one_seed_falls_back_to_prompts() -> None:
    values = np.random.default_rng(0).normal(size=24)
    alone = hierarchical_mean(values[None], SETTINGS)
    prompts = bootstrap_mean(values, 0.95, 2000, 0)
    assert (alone.low, alone.high) == pytest.approx((prompts.low, prompts.high), abs=0.03)


@pytest.mark.parametrize(
    ("deviations", "coverage"),
    # Seeds are few, so the interval is narrow where they vary; see the module.
    [((1.0, 0, 0), 0.83), ((0, 1.0, 0), 0.93), ((0.2, 1.0, 0.5), 0.945)],
)
def test_the_hierarchical_interval_covers_the_mean(
    deviations: tuple[float, float, float], coverage: float
) -> None:
    rng = np.random.default_rng(2)
    n_trials = 600
    intervals = [hierarchical_mean(crossed(rng, *deviations), QUICK) for _ in range(n_trials)]
    assert share_covered(intervals, 1) == pytest.approx(
        coverage, abs=sampling_error(coverage, n_trials)
    )


def test_what_prompts_do_to_both_sides_cancels_in_a_difference() -> None:
    rng = np.random.default_rng(3)
    prompts = rng.normal(0, 10, size=24)
    a, b = prompts + rng.normal(1, 0.1, (5, 24)), prompts + rng.normal(0, 0.1, (3, 24))
    interval = hierarchical_difference(a, b, SETTINGS)
    assert interval.mean == pytest.approx(a.mean() - b.mean())
    assert 0.9 < interval.low < interval.mean < interval.high < 1.1


def test_the_seeds_of_a_difference_are_drawn_apart() -> None:
    # Drawn together, the differences of equal seeds would all be 0.
    values = np.array([[0.0], [4.0]])
    wide = SETTINGS.model_copy(update={"confidence": 0.95})
    assert hierarchical_difference(values, values, wide) == Interval(0, -4, 4)
    # With one seed on each side, only prompts are drawn.
    assert hierarchical_difference(values[:1], values[1:], wide) == Interval(-4, -4, -4)


def test_a_difference_is_declared_as_often_as_it_should_be_under_the_null() -> None:
    rng = np.random.default_rng(4)
    n_trials = 600
    intervals = []
    for _ in range(n_trials):
        prompts = rng.normal(size=(1, 24))
        a, b = (rng.normal(size=(5, 1)) + prompts + rng.normal(0, 0.1, (5, 24)) for _ in range(2))
        intervals.append(hierarchical_difference(a, b, QUICK))
    # The most anti-conservative case, five seeds a side that alone vary: 89 % of the time.
    assert share_covered(intervals, 0) == pytest.approx(0.89, abs=sampling_error(0.89, n_trials))


def test_a_ratio_of_means_is_not_a_mean_of_ratios() -> None:
    # (1 + 3) / (1 + 1) = 2; the mean of the ratios 1/0.1 and 3/1.9 would be 5.8.
    interval = ratio_of_means([[1.0, 3.0]], [[0.1, 1.9]], SETTINGS)
    assert interval.mean == pytest.approx(2)


def test_a_ratio_resamples_both_sides_together() -> None:
    denominator = np.random.default_rng(5).uniform(1, 9, size=(5, 24))
    interval = ratio_of_means(0.3 * denominator, denominator, SETTINGS)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.3, 0.3, 0.3))
    below_zero = ratio_of_means(0.3 * denominator, -denominator, SETTINGS)
    assert (below_zero.low, below_zero.high) == pytest.approx((-0.3, -0.3))


def test_a_ratio_over_what_may_be_zero_has_no_bounds() -> None:
    rng = np.random.default_rng(6)
    interval = ratio_of_means(rng.normal(1, 1, (5, 24)), rng.normal(0, 1, (5, 24)), SETTINGS)
    assert np.isfinite(interval.mean)
    assert (interval.low, interval.high) == (-np.inf, np.inf)


def test_a_denominator_that_is_rarely_zero_unbounds_no_end() -> None:
    # Only drawing the one 0 six times in six, 1 in 46656, has no ratio.
    interval = ratio_of_means([[1.0] * 6], [[0.0, 2, 2, 2, 2, 2]], SETTINGS)
    assert interval.mean == pytest.approx(0.6)
    assert interval.low == pytest.approx(0.5)
    assert 0.6 < interval.high <= 1.5


def test_a_ratio_is_covered() -> None:
    # The ratio errs with the 24 prompts alone, whose percentile interval covers 93 % of the time.
    rng = np.random.default_rng(7)
    n_trials = 1000
    intervals = []
    for _ in range(n_trials):
        denominator = 4 * crossed(rng, 0.1, 0.3, 0.1)
        numerator = denominator * 0.5 + rng.normal(0, 0.5, (1, 24))
        intervals.append(ratio_of_means(numerator, denominator, QUICK))
    assert share_covered(intervals, 0.5) == pytest.approx(0.93, abs=sampling_error(0.93, n_trials))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hierarchical_mean([1.0, 2], SETTINGS), "n_seeds, n_prompts"),
        (lambda: hierarchical_mean(np.empty((0, 3)), SETTINGS), "n_seeds, n_prompts"),
        (lambda: hierarchical_mean([[1.0, np.nan]], SETTINGS), "1 that are not finite"),
        (lambda: hierarchical_difference([[1.0, 2]], [[1.0]], SETTINGS), "same prompts"),
        (lambda: ratio_of_means([[1.0, 2]], [[1.0], [2]], SETTINGS), "one shape"),
        (lambda: ratio_of_means([[1.0, 2]], [[1.0, -1]], SETTINGS), "mean is 0"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Interval], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_two_thousand_samples_take_a_moment() -> None:
    values: ArrayLike = np.random.default_rng(0).normal(size=(5, 24))
    hierarchical_mean(values, SETTINGS)
    started = time.perf_counter()
    for _ in range(3):
        hierarchical_mean(values, SETTINGS)
    assert (time.perf_counter() - started) / 3 < 0.05
