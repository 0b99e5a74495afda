"""Means over words: worked by hand, against scipy, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from circuitdrift.statistics.words import mean_over_words, ratio_over_words, sign_flip_p

TYPES = ["simple"] * 3 + ["spatial"] * 3


def test_the_interval_worked_by_hand() -> None:
    """Means 2 and 7, squares within 2 and 8, over 4 degrees of freedom: variance 2.5."""
    interval = mean_over_words([1.0, 2, 3, 5, 7, 9], TYPES, 0.95)
    half = stats.t.ppf(0.975, 4) * np.sqrt(2.5 / 6)
    assert interval.mean == pytest.approx(4.5)
    assert (interval.low, interval.high) == pytest.approx((4.5 - half, 4.5 + half))


def test_of_one_type_it_is_students_own() -> None:
    values = np.random.default_rng(0).normal(size=7)
    ours = mean_over_words(values, ["simple"] * 7, 0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    """Six words of two types whose means differ, which the variance within types does not see."""
    draws = np.random.default_rng(0).normal([0.0] * 3 + [5.0] * 3, 1.0, size=(4000, 6))
    intervals = [mean_over_words(values, TYPES, 0.95) for values in draws]
    covered = np.mean([interval.low <= 2.5 <= interval.high for interval in intervals])
    assert 0.94 < covered < 0.96


def test_a_ratio_is_taken_in_logs() -> None:
    interval = ratio_over_words([1.0, 2, 4, 1, 2, 4], TYPES, 0.95)
    logs = mean_over_words(np.log([1.0, 2, 4, 1, 2, 4]), TYPES, 0.95)
    assert interval.mean == pytest.approx(2)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.exp([logs.low, logs.high])))
    with pytest.raises(ValueError, match="above 0"):
        ratio_over_words([1.0, 0.0], ["a", "a"], 0.95)


def test_sign_flips_are_exact_and_one_sided() -> None:
    assert sign_flip_p([1.0] * 6) == 1 / 64
    assert sign_flip_p([-1.0] * 6) == 1
    # 2 + 1, 2 - 1, -2 + 1, -2 - 1: two are at least 2 - 1.
    assert sign_flip_p([2.0, -1.0]) == 2 / 4
    values = np.random.default_rng(1).normal(0.3, 1, 9)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(
    ("values", "types", "reason"),
    [
        ([1.0, 2.0], ["a", "b"], "two words"),
        ([1.0, 2.0], ["a"], "a value and a type"),
        ([1.0, float("nan")], ["a", "a"], "finite"),
    ],
)
def test_what_has_no_interval_is_refused(
    values: list[float], types: list[str], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        mean_over_words(values, types, 0.95)
