"""What the interventions say, apart from the faithfulness curves (``faithfulness_curves``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.statistics.intervals import Interval, ratio_of_means
from circuitdrift.summaries.grids import INTERVAL, Array, cells, size, with_interval

RANDOM = "random"
RECRUITED = "recruited"
BEYOND = "recruited beyond random"
SUFFICIENCY, NECESSITY = "sufficiency", "necessity"

# Below this difference of mean targets, in logits, a share of it means nothing.
SMALLEST_DIFFERENCE = 0.1

TRANSFER = ["condition", "circuit_from", "model"]
PATCHING = ["condition", "direction", "nodes"]
SPECIFICITY = ["condition", "circuit", "prompts"]
RANK = ["condition", "checkpoint"]


def without_draw(names: pd.Series) -> pd.Series:
    """``random-0``, ``random-1``, ... all as ``random``."""
    return names.str.replace(rf"^{RANDOM}-\d+$", RANDOM, regex=True)


def share_of(numerator: Array, denominator: Array, settings: Statistics) -> dict[str, Any]:
    """A ratio of means with its interval; empty where the denominator's mean is next to nothing.

    Args:
        numerator, denominator: ``[n_runs, n_prompts]``, in logits.
    """
    if abs(denominator.mean()) < SMALLEST_DIFFERENCE:
        return {**vars(Interval(math.nan, math.nan, math.nan)), **size(denominator)}
    return {**vars(ratio_of_means(numerator, denominator, settings)), **size(denominator)}


def transfer_summary(transfer: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Faithfulness of the circuit of each checkpoint in the model of each checkpoint.

    The ratio of means (value - empty) / (full - empty) over runs and prompts; empty where
    |full - empty| is below a tenth of a logit.
    """
    table = transfer.assign(
        kept=transfer["value"] - transfer["empty"], whole=transfer["full"] - transfer["empty"]
    )
    rows = [
        {**_named(TRANSFER, key), **share_of(*_grids(group, "kept", "whole"), settings)}
        for key, group in table.groupby(TRANSFER, sort=True)
    ]
    return pd.DataFrame(rows, columns=[*TRANSFER, *INTERVAL])


def patching_summary(patching: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Which share of the change of the target moves with the patched nodes.

    Sufficiency starts at the base model and goes to the fine-tuned one, necessity the other way:
    (patched - start) / (goal - start), a ratio of means. Random node sets are averaged over draws;
    `recruited beyond random` is the difference of the two shares, prompt by prompt.
    """
    backwards = patching["direction"] == NECESSITY
    start = patching["base"].where(~backwards, patching["tuned"])
    goal = patching["tuned"].where(~backwards, patching["base"])
    table = patching.assign(
        nodes=without_draw(patching["nodes"]), moved=patching["patched"] - start, way=goal - start
    )
    rows: list[dict[str, Any]] = []
    for key, group in table.groupby(["condition", "direction"], sort=True):
        moved = {}
        for nodes, of_nodes in group.groupby("nodes", sort=True):
            moved[nodes], way = _grids(of_nodes, "moved", "way")
            share = share_of(moved[nodes], way, settings)
            rows.append({**_named(PATCHING, (*key, nodes)), **share})
        if {RECRUITED, RANDOM} <= moved.keys():
            beyond = moved[RECRUITED] - moved[RANDOM]
            rows.append({**_named(PATCHING, (*key, BEYOND)), **share_of(beyond, way, settings)})
    return pd.DataFrame(rows, columns=[*PATCHING, *INTERVAL])


def specificity_summary(specificity: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """By how many logits the target falls when a type's circuit is ablated, by kind of prompts."""
    table = specificity.assign(
        circuit=without_draw(specificity["circuit"]),
        drop=specificity["full"] - specificity["ablated"],
    )
    return with_interval(table, SPECIFICITY, "drop", settings)


def ablation_rank_summary(ranks: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Rank correlation of a node's effect with what ablating it does in the model itself."""
    return with_interval(ranks, RANK, "spearman", settings)


def _named(columns: Sequence[str], key: Any) -> dict[str, Any]:
    return dict(zip(columns, key, strict=True))


def _grids(group: pd.DataFrame, one: str, other: str) -> tuple[Array, Array]:
    return cells(group, one).to_numpy(np.float64), cells(group, other).to_numpy(np.float64)
