"""What belongs to the mapping: what `mapped` has beyond `shuffled`, beyond random, beyond base.

Every row holds a difference of two means, its hierarchical interval, a permutation test over runs
and Hedges' g; ``q`` corrects ``p`` over the rows of a measure (Benjamini-Hochberg).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.core.study import BASE, TRAINED, Run
from circuitdrift.report.summaries import (
    EVALUATION,
    MAPPED,
    PROMPTS_OF_ROLE,
    SHUFFLED,
    Array,
    Row,
    from_base,
    grid,
    per_group,
    shared_cells,
    size,
)
from circuitdrift.statistics.intervals import (
    Interval,
    hedges_g,
    hierarchical_difference,
    hierarchical_mean,
)
from circuitdrift.statistics.permutation import (
    between_within_test,
    paired_permutation_test,
    permutation_test,
)

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

DRIFT = "drift from base"
BEYOND_RANDOM = "beyond random adapter"
BETWEEN = "between conditions"
ACCURACY = "accuracy"
ACCURACY_GAIN = "accuracy gain"
_RIGHT = "correct_in_type"
NUMBERS = ["mean", "low", "high", "p", "q", "hedges_g", "share", "n_seeds", "n_prompts"]


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
    drift = from_base(drift)
    asked = evaluation[evaluation["role"] == EVALUATION].assign(prompts=EVALUATION)
    base, later = asked[asked["checkpoint"] == BASE], asked[asked["checkpoint"] != BASE]
    gains = later.merge(base[["run", "prompt", _RIGHT]], on=["run", "prompt"], suffixes=("", "_0"))
    of_drift = partial(_difference, value="drift", settings=settings)
    of_accuracy = partial(_difference, value=_RIGHT, settings=settings)
    measures = {
        DRIFT: (_taught(drift[drift["change"] == TRAINED]), partial(of_drift, share=True)),
        BETWEEN: (
            between.assign(condition=MAPPED, prompts=between["role"].map(PROMPTS_OF_ROLE)),
            partial(_between, settings=settings),
        ),
        BEYOND_RANDOM: (drift.assign(first=drift["change"] == TRAINED), of_drift),
        ACCURACY: (_taught(later), of_accuracy),
        ACCURACY_GAIN: (
            gains.assign(gain=gains[_RIGHT] - gains[f"{_RIGHT}_0"]),
            partial(_gain, settings=settings),
        ),
    }
    tables = [
        per_group(rows, ["condition", "prompts", "checkpoint"], rows_of, NUMBERS).assign(
            measure=measure
        )
        for measure, (rows, rows_of) in measures.items()
    ]
    key = ["measure", "condition", "checkpoint", "prompts"]
    return _corrected(pd.concat(tables, ignore_index=True)[[*key, *NUMBERS]])


def _taught(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `mapped`, to be held against those of `shuffled`, under the former's name."""
    rows = table[table["condition"].isin([MAPPED, SHUFFLED])]
    return rows.assign(first=rows["condition"] == MAPPED, condition=MAPPED)


def _difference(
    rows: pd.DataFrame, value: str, settings: Statistics, share: bool = False
) -> Iterable[Row]:
    """Of the rows marked ``first`` minus the others, on the prompts of both; tested over runs."""
    a, b = shared_cells(rows[rows["first"]], rows[~rows["first"]], value)
    if not a.size or not b.size:
        return
    interval = hierarchical_difference(a, b, settings)
    runs_a, runs_b = a.mean(axis=1), b.mean(axis=1)
    several = min(len(runs_a), len(runs_b)) > 1
    yield {
        **vars(interval),
        "p": permutation_test(runs_a, runs_b, settings).p if several else math.nan,
        "hedges_g": hedges_g(runs_a, runs_b) if several else math.nan,
        "share": interval.mean / a.mean() if share and a.mean() > 0 else math.nan,
        "n_seeds": min(len(runs_a), len(runs_b)),
        "n_prompts": a.shape[1],
    }


def _gain(rows: pd.DataFrame, settings: Statistics) -> Iterable[Row]:
    gain = grid(rows, "gain")
    several = gain.shape[1] > 1
    p = paired_permutation_test(gain.mean(axis=0), settings).p if several else math.nan
    yield {**vars(hierarchical_mean(gain, settings)), "p": p, **size(gain)}


def _between(rows: pd.DataFrame, settings: Statistics) -> Iterable[Row]:
    distances, conditions = distance_matrices(rows, (MAPPED, SHUFFLED))
    interval = between_within_interval(distances, conditions, settings)
    if interval is not None:
        yield {
            **vars(interval),
            "p": between_within_test(distances.mean(axis=0), conditions, settings).p,
            "n_seeds": min(conditions.count(name) for name in (MAPPED, SHUFFLED)),
            "n_prompts": len(distances),
        }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """With ``q`` filled in, over the rows of a measure that have a ``p``."""
    from scipy.stats import false_discovery_control

    table = table.astype(dict.fromkeys(NUMBERS, np.float64))
    for _, rows in table[table["p"].notna()].groupby("measure"):
        table.loc[rows.index, "q"] = false_discovery_control(rows["p"])
    return table.astype({"n_seeds": np.int64, "n_prompts": np.int64})


def distance_matrices(between: pd.DataFrame, conditions: Sequence[str]) -> tuple[Array, list[str]]:
    """Symmetric distances between the runs of ``conditions``, one matrix per prompt.

    Args:
        between: run_a, run_b, prompt, drift of each pair of runs, at one checkpoint.

    Returns:
        ``[n_prompts, n_runs, n_runs]`` and each run's condition, runs in sorted order.
    """
    names = pd.unique(between[["run_a", "run_b"]].to_numpy().ravel())
    runs = sorted(run for run in map(Run.parse, names) if run.condition in conditions)
    index = {run.name: position for position, run in enumerate(runs)}
    rows = between[between["run_a"].isin(index) & between["run_b"].isin(index)]
    prompts = {prompt: place for place, prompt in enumerate(sorted(rows["prompt"].unique()))}
    distances = np.zeros((len(prompts), len(runs), len(runs)))
    place = rows["prompt"].map(prompts).to_numpy(np.int64)
    a, b = (rows[side].map(index).to_numpy(np.int64) for side in ("run_a", "run_b"))
    distances[place, a, b] = distances[place, b, a] = rows["drift"].to_numpy(np.float64)
    return distances, [run.condition for run in runs]


def between_within_interval(
    distances: Array, labels: Sequence[str], settings: Statistics
) -> Interval | None:
    """Mean distance of pairs with different labels minus that of pairs with one label.

    Runs are resampled within their label, and prompts beside them. A run drawn twice is at no
    distance from itself; such pairs count nowhere, and a draw that leaves no pair within any label
    is left out.

    Args:
        distances: ``[n_prompts, n_runs, n_runs]``, symmetric.

    Returns:
        None where there is no pair of either kind.
    """
    of = np.asarray(labels)
    different = np.triu(of[:, None] != of[None, :], k=1)
    same = np.triu(of[:, None] == of[None, :], k=1)
    if not different.any() or not same.any():
        return None
    rng = np.random.default_rng(settings.seed)
    n_prompts, n_samples = len(distances), settings.bootstrap_samples
    prompts = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), n_samples) / n_prompts
    runs = np.zeros((n_samples, len(of)))
    for label in sorted(set(labels)):
        members = np.flatnonzero(of == label)
        runs[:, members] = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), n_samples
        )
    mean = np.tensordot(prompts, distances, axes=1)
    weight = runs[:, :, None] * runs[:, None, :]
    drawn = _mean_over(different, mean, weight) - _mean_over(same, mean, weight)
    tail = 50 * (1 - settings.confidence)
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    whole = distances.mean(axis=0)
    return Interval(float(whole[different].mean() - whole[same].mean()), float(low), float(high))


def _mean_over(pairs: NDArray[np.bool_], distance: Array, weight: Array) -> Array:
    """Weighted mean over the marked pairs, of each sample; NaN where none has a weight."""
    weights = weight[:, pairs]
    total = weights.sum(axis=1)
    weighted = (weights * distance[:, pairs]).sum(axis=1)
    return np.divide(weighted, total, out=np.full(len(total), np.nan), where=total > 0)
