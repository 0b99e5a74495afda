"""How often intervals hold the truth: where it is known, by brute force, and withheld."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from circuitdrift.params import load_params
from circuitdrift.statistics.coverage import (
    DIFFERENCE,
    LOG_RATIO,
    PROBABILITY,
    Model,
    checked_interval,
    simulated_coverage,
)
from circuitdrift.statistics.words import half_widths

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml")
SETTINGS = PARAMS.statistics
QUICK = PARAMS.model_copy(
    update={"statistics": SETTINGS.model_copy(update={"coverage_samples": 4000})}
)
TYPES = ["simple"] * 3 + ["spatial"] * 3
SIZES = (3, 3)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 2), (12,), (2, 3), (12, 12)])
def test_normal_values_are_covered_as_registered(sizes: tuple[int, ...]) -> None:
    """Student's interval is exact there: 95 % but for sampling error."""
    for model in (DIFFERENCE, LOG_RATIO):
        share = simulated_coverage(model, 0.0, 1.0, sizes, SETTINGS)
        error = 3 * math.sqrt(0.95 * 0.05 / SETTINGS.coverage_samples)
        assert share == pytest.approx(0.95, abs=error)
        assert 0.93 <= share <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "mean"),
    [
        (DIFFERENCE, 0.0),
        *((Model("share", trials=96), mean) for mean in (1 / 3, 1 / 3 + 0.2, 0.75)),
        *((Model("share", trials=72), mean) for mean in (1 / 3, 1 / 3 + 0.1)),
        *((Model("ratio", below=(6.0, 1.5, 1.0)), mean) for mean in (0.0, 0.1)),
    ],
)
def test_at_the_study_s_sizes_intervals_cover(model: Model, mean: float) -> None:
    """At every bound and threshold, of words that differ by a tenth."""
    assert 0.93 <= simulated_coverage(model, mean, 0.1, SIZES, SETTINGS) <= 0.97


def test_a_share_s_coverage_by_brute_force() -> None:
    """Words' rates of a Beta around .75, 96 answers each, intervals one by one."""
    mean, spread, rng = 0.75, 0.2, np.random.default_rng(5)
    size = mean * (1 - mean) / spread**2 - 1
    covered = []
    for _ in range(4000):
        rates = rng.beta(mean * size, (1 - mean) * size, 6)
        values = rng.binomial(96, rates) / 96
        covered.append(abs(values.mean() - mean) <= half_widths(values, TYPES, 0.95))
    share = simulated_coverage(Model("share", trials=96), mean, spread, SIZES, SETTINGS)
    assert share == pytest.approx(np.mean(covered), abs=4 * math.sqrt(0.9 * 0.1 / 4000))
    assert share < 0.93


def test_a_ratio_s_words_keep_their_spread_and_their_least_denominator() -> None:
    """Nearer to that least, tails grow heavy and intervals hold the truth more often."""
    far, near = (
        simulated_coverage(Model("ratio", below=below), 0.1, 0.1, SIZES, SETTINGS)
        for below in ((20.0, 1.0, 1.0), (1.5, 2.0, 1.0))
    )
    assert far == pytest.approx(0.95, abs=0.006)
    assert near > far + 0.005


def test_what_trials_add_is_taken_off_the_spread() -> None:
    """Values as far apart as 20 coins of one rate come out: no spread is left but the least."""
    values = [0.25, 0.4, 0.35, 0.3, 0.45, 0.25]
    own = checked_interval(values, TYPES, Model("share", trials=20), QUICK)
    alike = simulated_coverage(
        Model("share", trials=20), float(np.mean(values)), 0.01, SIZES, QUICK.statistics
    )
    assert own.coverage == alike


def test_the_worse_of_bound_and_threshold_counts() -> None:
    values = [0.75, 0.85, 0.95, 0.65, 0.8, 0.95]
    checked = checked_interval(
        values, TYPES, PROBABILITY, QUICK, {"bound": 1 / 3, "threshold": 0.95}
    )
    good, bad = checked.rows
    assert good["coverage"] > 0.93 > bad["coverage"] == checked.coverage
    assert checked.mean == pytest.approx(np.mean(values))
    assert math.isnan(checked.low)
    assert [row["printed"] for row in checked.rows] == [False, False]
    one = checked_interval(values, TYPES, PROBABILITY, QUICK, {"bound": 1 / 3})
    half = half_widths(np.array(values), TYPES, 0.95)
    assert (one.low, one.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))


def test_words_that_are_all_alike_vary_by_a_small_value() -> None:
    checked = checked_interval([0.5] * 6, TYPES, Model("share", trials=96), QUICK)
    assert 0.93 <= checked.coverage <= 0.97
    assert (checked.low, checked.high) == (0.5, 0.5)


def test_without_two_words_of_a_type_there_is_no_interval() -> None:
    checked = checked_interval([0.1, 0.4], ["a", "b"], DIFFERENCE, QUICK)
    assert (checked.mean, checked.rows) == (pytest.approx(0.25), ())
    assert math.isnan(checked.low)
    assert math.isnan(checked.coverage)
