"""How much farther apart two runs of different conditions lie than two runs of the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import Run
from circuitdrift.statistics.intervals import Interval

Array = NDArray[np.float64]


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
