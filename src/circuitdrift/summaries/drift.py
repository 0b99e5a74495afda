"""How far the circuits moved, beside what chance and a second seed would give."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE, TRAINED
from circuitdrift.summaries.grids import PROMPTS_OF_ROLE, RANDOM_ADAPTER, with_interval

OVERLAP_KEY = ["condition", "role", "from", "to", "threshold"]
OVERLAP_MEASURES = ["jaccard", "null", "ceiling"]


def from_base(drift: pd.DataFrame) -> pd.DataFrame:
    """The rows that start at the base model, with their ``prompts`` and ``checkpoint`` named."""
    rows = drift[drift["from"] == BASE]
    return rows.assign(prompts=rows["role"].map(PROMPTS_OF_ROLE), checkpoint=rows["to"])


def drift_summary(drift: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Drift from the base model by condition, kind of prompts and checkpoint.

    Random adapters stand under a condition of their own, those of all runs together: they share
    a run's norms and nothing of its data.
    """
    rows = from_base(drift)
    named = rows.assign(
        condition=rows["condition"].where(rows["change"] == TRAINED, RANDOM_ADAPTER)
    )
    return with_interval(named, ["condition", "prompts", "checkpoint"], "drift", settings)


def overlap_summary(overlap: pd.DataFrame) -> pd.DataFrame:
    """Node overlap of each pair of checkpoints, means over runs, and corrected for chance.

    ``corrected`` is (J - J_null) / (J_ceiling - J_null) of the means; empty where a condition has
    one seed and therefore no ceiling.
    """
    means = overlap.groupby(OVERLAP_KEY, as_index=False, sort=True)[OVERLAP_MEASURES].mean()
    runs = overlap.groupby(OVERLAP_KEY, as_index=False, sort=True)["run"].nunique()
    room = means["ceiling"] - means["null"]
    corrected = (means["jaccard"] - means["null"]) / room.where(room > 0)
    return means.assign(corrected=corrected, n_runs=runs["run"])


def middle_threshold(thresholds: Sequence[float]) -> float:
    """The one that is shown where there is room for one."""
    ordered = sorted(set(thresholds))
    return ordered[len(ordered) // 2]
