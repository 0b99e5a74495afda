"""Tidy tables as grids of runs and prompts, and the names that all summaries share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE
from circuitdrift.statistics.intervals import hierarchical_mean

Array = NDArray[np.float64]

MAPPED, SHUFFLED = "mapped", "shuffled"
TASK, EVALUATION, CONTROL = "task", "evaluation", "control"
PROMPTS_OF_ROLE = {"discovery": TASK, "evaluation": EVALUATION, "control": CONTROL}
RANDOM_ADAPTER = "random adapter"
INTERVAL = ["mean", "low", "high", "n_seeds", "n_prompts"]


def checkpoint_order(checkpoints: Sequence[str]) -> list[str]:
    """Base first, then by share of training."""
    return sorted(set(checkpoints), key=lambda name: (name != BASE, name))


def focus_condition(conditions: Sequence[str]) -> str:
    """The condition that a page about one of them is about."""
    return MAPPED if MAPPED in conditions else conditions[0]


def cells(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """``value`` by run and prompt, several rows of one cell (such as random draws) averaged.

    A prompt on which some run has no value is left out: runs compare on the same prompts alone.

    Returns:
        a table ``[n_runs, n_prompts]``, both in sorted order.
    """
    grid = table.pivot_table(index="run", columns="prompt", values=value, aggfunc="mean")
    return grid.dropna(axis="columns")


def shared_cells(one: pd.DataFrame, other: pd.DataFrame, value: str) -> tuple[Array, Array]:
    """Two tables as grids over the prompts that both have: ``[n_runs, n_prompts]`` each."""
    left, right = cells(one, value), cells(other, value)
    prompts = left.columns.intersection(right.columns)
    return left[prompts].to_numpy(np.float64), right[prompts].to_numpy(np.float64)


def with_interval(
    table: pd.DataFrame, by: Sequence[str], value: str, settings: Statistics
) -> pd.DataFrame:
    """Mean of ``value`` over runs and prompts of each group, with its hierarchical interval.

    Args:
        table: one row per run and prompt of a group, with the columns ``by``, run and prompt.

    Returns:
        the columns ``by``, then ``mean``, ``low``, ``high``, ``n_seeds``, ``n_prompts``.
    """
    rows: list[dict[str, Any]] = []
    for key, group in table.groupby(list(by), sort=True):
        grid = cells(group, value).to_numpy(np.float64)
        if grid.size:
            interval = vars(hierarchical_mean(grid, settings))
            rows.append({**dict(zip(by, key, strict=True)), **interval, **size(grid)})
    return pd.DataFrame(rows, columns=[*by, *INTERVAL])


def size(grid: Array) -> dict[str, int]:
    return {"n_seeds": grid.shape[0], "n_prompts": grid.shape[1]}
