"""Differences between two experiments, prompt against prompt, and which pairs are compared. Pure.

The ends of what was varied are compared, all else equal: which experiments these are is fixed by
the plan and not by what came out, so no difference was picked for its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitdrift.config.statistics import Statistics
from circuitdrift.scaling.frames import mean, value_at
from circuitdrift.scaling.tables import Experiment
from circuitdrift.statistics.correlation import rank_correlation
from circuitdrift.statistics.intervals import Interval, hierarchical_difference
from circuitdrift.summaries.grids import shared_cells


@dataclass(frozen=True)
class Ends:
    """The two experiments of least and most of one key, equal in the arm's other keys.

    Attributes:
        held: the other keys and their values.
        all: every experiment between them too, by the key's value.
    """

    key: str
    held: dict[str, Any]
    all: tuple[Experiment, ...]

    @property
    def least(self) -> Experiment:
        return self.all[0]

    @property
    def most(self) -> Experiment:
        return self.all[-1]


def ends_of(experiments: Sequence[Experiment], key: str, others: Sequence[str]) -> list[Ends]:
    """For each setting of the other keys that has two experiments, the ends of ``key``."""
    groups: dict[tuple[Any, ...], list[Experiment]] = {}
    for experiment in experiments:
        held = tuple(value_at(experiment.params, other) for other in others)
        groups.setdefault(held, []).append(experiment)
    return [
        Ends(key, dict(zip(others, held, strict=True)), _by_value(group, key))
        for held, group in sorted(groups.items(), key=lambda item: item[0])
        if len(group) > 1
    ]


def _by_value(group: Sequence[Experiment], key: str) -> tuple[Experiment, ...]:
    return tuple(sorted(group, key=lambda experiment: value_at(experiment.params, key)))


def difference(
    before: Experiment, after: Experiment, measure: str, settings: Statistics
) -> Interval:
    """``after`` minus ``before``, with an interval where the measure has a value on each prompt.

    The same prompts stand on both sides, and what a prompt does to both cancels. Of one seed the
    interval is over prompts alone. NaN where one of them did not measure it.
    """
    if measure in before.prompts and measure in after.prompts:
        left, right = shared_cells(after.prompts[measure], before.prompts[measure], "value")
        if left.size and right.size:
            return hierarchical_difference(left, right, settings)
    return Interval(mean(after, measure) - mean(before, measure), math.nan, math.nan)


def spread(experiments: Sequence[Experiment], measure: str) -> float:
    """Largest minus smallest mean; NaN with fewer than two."""
    values = [mean(experiment, measure) for experiment in experiments]
    known = [value for value in values if math.isfinite(value)]
    return max(known) - min(known) if len(known) > 1 else math.nan


def correlation(
    experiments: Sequence[Experiment], x: Sequence[float], measure: str
) -> tuple[float, int]:
    """Spearman's rank correlation of ``x`` with a measure, and over how many experiments.

    NaN below three experiments, or where either does not vary.
    """
    pairs = [
        (value, mean(experiment, measure))
        for value, experiment in zip(x, experiments, strict=True)
        if math.isfinite(mean(experiment, measure))
    ]
    if len(pairs) < 3:
        return math.nan, len(pairs)
    left, right = np.array(pairs, dtype=np.float64).T
    return rank_correlation(left, right), len(pairs)
