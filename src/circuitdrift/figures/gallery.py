"""Every figure that the study has something to show in, by the name of its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from circuitdrift.figures.baselines import forest_figure
from circuitdrift.figures.drift import (
    drift_figure,
    overlap_figure,
    overlap_thresholds_figure,
)
from circuitdrift.figures.interventions import (
    ablation_rank_figure,
    faithfulness_figure,
    patching_figure,
    transfer_figure,
)
from circuitdrift.figures.places import change_figure, mapping_place_figure, recruited_figure
from circuitdrift.figures.training import loss_figure, understanding_figure
from circuitdrift.identifiers import BASE, SEGMENTS
from circuitdrift.summaries.drift import middle_threshold
from circuitdrift.summaries.faithfulness_curves import FAITHFULNESS
from circuitdrift.summaries.grids import checkpoint_order, focus_condition
from circuitdrift.summaries.study import StudyTables, Summaries

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def draw(params: Params, tables: StudyTables, summaries: Summaries) -> dict[str, Figure]:
    """The figures of the page; one whose table has no rows is left out."""
    checkpoints = list(params.train.checkpoint_names)
    with_base = checkpoint_order([BASE, *checkpoints])
    marks = pd.DataFrame({"checkpoint": checkpoints, "progress": params.train.checkpoints})
    original = pd.DataFrame(tables.original["losses"])
    drawn = {
        "loss": loss_figure(summaries.loss, marks, original),
        "understanding": understanding_figure(summaries.understanding, with_base),
        "drift": drift_figure(summaries.drift, checkpoints),
        "change_by_place": change_figure(summaries.change, SEGMENTS),
    }
    overlap = summaries.overlap[summaries.overlap["role"] == "discovery"]
    threshold = middle_threshold(params.compare.thresholds)
    middle = overlap[(overlap["threshold"] - threshold).abs() < 1e-9]
    ranks = _focus(summaries.ablation_rank)
    optional: dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame], Figure]]] = {
        "overlap": (middle, overlap_figure),
        "overlap_thresholds": (
            overlap[overlap["from"] == BASE],
            lambda table: overlap_thresholds_figure(table, checkpoints),
        ),
        "mapping_by_place": (
            summaries.mapping_by_place,
            lambda table: mapping_place_figure(table, SEGMENTS),
        ),
        "recruited": (tables.recruited, recruited_figure),
        "faithfulness": (_last_curves(params, summaries.faithfulness), faithfulness_figure),
        "transfer": (
            _focus(summaries.transfer).dropna(subset=["mean"]),
            lambda table: transfer_figure(table, with_base),
        ),
        "patching": (
            _focus(summaries.patching).dropna(subset=["mean"]),
            patching_figure,
        ),
        "ablation_rank": (
            ranks,
            lambda table: ablation_rank_figure(table, checkpoint_order(list(table["checkpoint"]))),
        ),
        "baselines": (summaries.baselines.dropna(subset=["low", "high"]), forest_figure),
    }
    return drawn | {name: draw_(table) for name, (table, draw_) in optional.items() if len(table)}


def _focus(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one validated condition, `mapped` where it is one."""
    validated = sorted(table["condition"].unique())
    return table[table["condition"] == focus_condition(validated)] if validated else table


def _last_curves(params: Params, summary: pd.DataFrame) -> pd.DataFrame:
    rows = _focus(summary)
    return rows[
        (rows["measure"] == FAITHFULNESS)
        & (rows["checkpoint"] == params.train.checkpoint_names[-1])
        & rows["mean"].notna()
    ]
