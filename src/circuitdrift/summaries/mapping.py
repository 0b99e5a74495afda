"""What belongs to the mapping: what `mapped` has beyond `shuffled`, beyond random, beyond base.

Every row holds a difference of two means, its hierarchical interval, a permutation test over runs
and Hedges' g; ``q`` corrects ``p`` over the rows of a measure (Benjamini-Hochberg).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE, TRAINED
from circuitdrift.statistics.effect_size import hedges_g
from circuitdrift.statistics.intervals import hierarchical_difference, hierarchical_mean
from circuitdrift.statistics.permutation import (
    between_within_test,
    paired_permutation_test,
    permutation_test,
)
from circuitdrift.summaries.drift import from_base
from circuitdrift.summaries.grids import (
    EVALUATION,
    MAPPED,
    PROMPTS_OF_ROLE,
    SHUFFLED,
    Array,
    shared_cells,
)
from circuitdrift.summaries.pairs_of_runs import between_within_interval, distance_matrices

DRIFT = "drift from base"
BEYOND_RANDOM = "beyond random adapter"
BETWEEN = "between conditions"
ACCURACY = "accuracy"
ACCURACY_GAIN = "accuracy gain"
MEASURES = (DRIFT, BETWEEN, BEYOND_RANDOM, ACCURACY, ACCURACY_GAIN)
KEY = ["measure", "condition", "checkpoint", "prompts"]
COLUMNS = [
    *KEY,
    *("mean", "low", "high", "p", "q", "hedges_g", "share", "n_seeds", "n_prompts"),
]


def mapping(
    drift: pd.DataFrame, between: pd.DataFrame, evaluation: pd.DataFrame, settings: Statistics
) -> pd.DataFrame:
    """One row per measure, condition, checkpoint and kind of prompts.

    - `drift from base`: mean drift of `mapped` minus `shuffled`; `share` is the difference over
      the drift of `mapped`;
    - `between conditions`: mean drift between a mapped and a shuffled run minus that between two
      runs of one condition;
    - `beyond random adapter`: drift of a condition's checkpoints minus that of random adapters of
      the same norms;
    - `accuracy`: share of evaluation prompts whose right answer wins, `mapped` minus `shuffled`;
    - `accuracy gain`: the same of a condition's checkpoint minus the base model. Its test flips
      signs over prompts, for there is one base model.

    A measure whose runs are not there has no rows. One run a condition leaves ``p`` and
    ``hedges_g`` empty.
    """
    rows = [
        *_drift_rows(drift, settings),
        *_between_rows(between, settings),
        *_beyond_random_rows(drift, settings),
        *_accuracy_rows(evaluation, settings),
        *_accuracy_gain_rows(evaluation, settings),
    ]
    return _corrected(pd.DataFrame(rows, columns=COLUMNS))


def _drift_rows(drift: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    trained = from_base(drift[drift["change"] == TRAINED])
    for (prompts, checkpoint), rows in trained.groupby(["prompts", "checkpoint"], sort=True):
        mapped, shuffled = shared_cells(*_conditions(rows), "drift")
        if mapped.size and shuffled.size:
            row = _difference(mapped, shuffled, settings)
            yield {
                **_key(DRIFT, MAPPED, checkpoint, prompts),
                **row,
                "share": row["mean"] / mapped.mean() if mapped.mean() > 0 else math.nan,
            }


def _beyond_random_rows(drift: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    by = ["condition", "prompts", "checkpoint"]
    for (condition, prompts, checkpoint), rows in from_base(drift).groupby(by, sort=True):
        is_trained = rows["change"] == TRAINED
        trained, random = shared_cells(rows[is_trained], rows[~is_trained], "drift")
        if trained.size and random.size:
            yield {
                **_key(BEYOND_RANDOM, condition, checkpoint, prompts),
                **_difference(trained, random, settings),
            }


def _between_rows(between: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    named = between.assign(prompts=between["role"].map(PROMPTS_OF_ROLE))
    for (prompts, checkpoint), rows in named.groupby(["prompts", "checkpoint"], sort=True):
        distances, conditions = distance_matrices(rows, (MAPPED, SHUFFLED))
        interval = between_within_interval(distances, conditions, settings)
        if interval is None:
            continue
        test = between_within_test(distances.mean(axis=0), conditions, settings)
        yield {
            **_key(BETWEEN, MAPPED, checkpoint, prompts),
            **vars(interval),
            "p": test.p,
            "n_seeds": min(conditions.count(name) for name in (MAPPED, SHUFFLED)),
            "n_prompts": len(distances),
        }


def _accuracy_rows(evaluation: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    asked = evaluation[(evaluation["role"] == EVALUATION) & (evaluation["checkpoint"] != BASE)]
    for checkpoint, rows in asked.groupby("checkpoint", sort=True):
        mapped, shuffled = shared_cells(*_conditions(rows), "correct_in_type")
        if mapped.size and shuffled.size:
            yield {
                **_key(ACCURACY, MAPPED, checkpoint, EVALUATION),
                **_difference(mapped, shuffled, settings),
            }


def _accuracy_gain_rows(evaluation: pd.DataFrame, settings: Statistics) -> Iterator[dict[str, Any]]:
    asked = evaluation[evaluation["role"] == EVALUATION]
    for condition, rows in asked.groupby("condition", sort=True):
        base = rows[rows["checkpoint"] == BASE]
        for checkpoint, later in rows[rows["checkpoint"] != BASE].groupby("checkpoint", sort=True):
            after, before = shared_cells(later, base, "correct_in_type")
            gain = after - before
            yield {
                **_key(ACCURACY_GAIN, condition, checkpoint, EVALUATION),
                **vars(hierarchical_mean(gain, settings)),
                "p": _sign_flips(gain, settings),
                "n_seeds": gain.shape[0],
                "n_prompts": gain.shape[1],
            }


def _sign_flips(gain: Array, settings: Statistics) -> float:
    """p of the prompts' mean gains, or NaN with a single prompt."""
    if gain.shape[1] < 2:
        return math.nan
    return paired_permutation_test(gain.mean(axis=0), settings).p


def _conditions(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return rows[rows["condition"] == MAPPED], rows[rows["condition"] == SHUFFLED]


def _key(measure: str, condition: Any, checkpoint: Any, prompts: Any) -> dict[str, str]:
    return dict(zip(KEY, (measure, condition, checkpoint, prompts), strict=True))


def _difference(a: Array, b: Array, settings: Statistics) -> dict[str, float]:
    """Of two grids ``[n_runs, n_prompts]`` over the same prompts; tested over the runs' means."""
    runs_a, runs_b = a.mean(axis=1), b.mean(axis=1)
    several = min(len(runs_a), len(runs_b)) > 1
    return {
        **vars(hierarchical_difference(a, b, settings)),
        "p": permutation_test(runs_a, runs_b, settings).p if several else math.nan,
        "hedges_g": hedges_g(runs_a, runs_b) if several else math.nan,
        "n_seeds": min(len(runs_a), len(runs_b)),
        "n_prompts": a.shape[1],
    }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """With ``q`` filled in, over the rows of a measure that have a ``p``."""
    numbers = [column for column in COLUMNS if column not in KEY]
    table[numbers] = table[numbers].astype(np.float64)
    for _, rows in table[table["p"].notna()].groupby("measure"):
        table.loc[rows.index, "q"] = false_discovery_control(rows["p"])
    counts = ["n_seeds", "n_prompts"]
    table[counts] = table[counts].astype(np.int64)
    return table
