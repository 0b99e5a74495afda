from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitdrift.params import Statistics
from circuitdrift.statistics.intervals import (
    Interval,
    hedges_g,
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


def test_hedges_g_worked_by_hand() -> None:
    # Means 3 and 1, pooled variance (2 + 2)/4 = 1, so d = 2. At m = 4 degrees of freedom
    # J = gamma(2) / (sqrt(2) gamma(3/2)) = 1 / (sqrt(2) sqrt(pi)/2) = sqrt(2/pi).
    assert hedges_g([2, 3, 4], [0, 1, 2]) == pytest.approx(2 * np.sqrt(2 / np.pi))
    assert hedges_g([1.0, 1], [1, 1]) == 0
    assert (hedges_g([2.0, 2], [1, 1]), hedges_g([0.1, 0.1, 0.1], [1, 1])) == (np.inf, -np.inf)


def test_hedges_g_is_unbiased_in_small_samples() -> None:
    rng = np.random.default_rng(0)
    estimates = [hedges_g(rng.normal(1, 1, 5), rng.normal(0, 1, 5)) for _ in range(4000)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    # Without the correction the mean would be 1 / 0.903, far outside.
    assert np.mean(estimates) == pytest.approx(1, abs=3 * error)
    assert 3 * error < 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hierarchical_mean([1.0, 2], SETTINGS), "n_seeds, n_prompts"),
        (lambda: hierarchical_mean(np.empty((0, 3)), SETTINGS), "n_seeds, n_prompts"),
        (lambda: hierarchical_mean([[1.0, np.nan]], SETTINGS), "1 that are not finite"),
        (lambda: hierarchical_difference([[1.0, 2]], [[1.0]], SETTINGS), "same prompts"),
        (lambda: ratio_of_means([[1.0, 2]], [[1.0], [2]], SETTINGS), "one shape"),
        (lambda: ratio_of_means([[1.0, 2]], [[1.0, -1]], SETTINGS), "mean is 0"),
        (lambda: hedges_g([1.0], [1.0, 2]), "two finite values"),
        (lambda: hedges_g([1.0, np.nan], [1.0, 2]), "two finite values"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
