"""Means over words: worked by hand, against scipy, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from circuitdrift.statistics.words import half_widths, mean_over_words, pooled_variance, sign_flip_p

TYPES = ["simple"] * 3 + ["spatial"] * 3


def test_the_interval_worked_by_hand() -> None:
    """Means 2 and 7, squares within 2 and 8, over 4 degrees of freedom: variance 2.5."""
    values = np.array([1.0, 2, 3, 5, 7, 9])
    assert pooled_variance(values, TYPES) == pytest.approx(2.5)
    half = stats.t.ppf(0.975, 4) * np.sqrt(2.5 / 6)
    interval = mean_over_words(values, TYPES, 0.95)
    assert tuple(vars(interval).values()) == pytest.approx((4.5, 4.5 - half, 4.5 + half))
    # The order of the words means nothing, and studies stand in front.
    order = [5, 0, 3, 1, 4, 2]
    mixed = np.stack([values[order], 2 * values[order]])
    names = [TYPES[word] for word in order]
    assert half_widths(mixed, names, 0.95) == pytest.approx([half, 2 * half])


def test_of_one_type_it_is_students_own() -> None:
    values = np.random.default_rng(0).normal(size=7)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert half_widths(values, ["simple"] * 7, 0.9) == pytest.approx(theirs.high - values.mean())


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    """Six words of two types whose means differ, which the variance within types does not see."""
    draws = np.random.default_rng(0).normal([0.0] * 3 + [5.0] * 3, 1.0, size=(20000, 6))
    covered = np.abs(draws.mean(1) - 2.5) <= half_widths(draws, TYPES, 0.95)
    assert covered.mean() == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 20000))


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


def test_sign_flips_of_many_words_are_exact_too() -> None:
    """All 24 alike: of 2^24 signs one is as large; a 25th that is 0 may have either sign."""
    assert sign_flip_p([0.1] * 24) == 2.0**-24
    assert sign_flip_p([*[0.1] * 24, 0.0]) == 2.0**-24
    # At most one of them turned.
    assert sign_flip_p([-0.1, *[0.1] * 23]) == 25 * 2.0**-24


def test_six_words_seem_to_learn_by_chance_at_most_as_often_as_alpha_says() -> None:
    """Skewed words too, as long as they lie around 0 as often as the other way."""
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(4000, 6)) * rng.exponential(size=(4000, 6))
    rate = np.mean([sign_flip_p(values) <= 0.05 for values in draws])
    assert rate == pytest.approx(3 / 64, abs=3 * np.sqrt(0.05 * 0.95 / 4000))


def test_what_has_no_interval_or_p_is_refused() -> None:
    with pytest.raises(ValueError, match="two words"):
        half_widths(np.array([1.0, 2.0]), ["a", "b"], 0.95)
    for values in ([1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            sign_flip_p(values)
