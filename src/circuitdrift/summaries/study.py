"""All tables of the study as they were read, and all that is summarised from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from circuitdrift.baselines import baseline_table, compare_baselines
from circuitdrift.config.statistics import Statistics
from circuitdrift.summaries.drift import drift_summary, overlap_summary
from circuitdrift.summaries.faithfulness_curves import faithfulness_summary
from circuitdrift.summaries.grids import focus_condition
from circuitdrift.summaries.interventions import (
    ablation_rank_summary,
    patching_summary,
    specificity_summary,
    transfer_summary,
)
from circuitdrift.summaries.mapping import mapping
from circuitdrift.summaries.places import change_map, mapping_by_place
from circuitdrift.summaries.training import loss_at_checkpoints, loss_by_step, understanding

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

BASELINE_COLUMNS = ["outcome", "predictor", "given", "correlation", "low", "high", "n", "adds"]


@dataclass(frozen=True)
class StudyTables:
    """What the stages before the report wrote.

    Attributes:
        headlines: evaluation headlines by run (base too), then checkpoint.
        logs: loss per step by run.
        evaluation: a row per prompt, run and checkpoint, base among the checkpoints of each run.
        norms: run, checkpoint, layer, norm.
        drift, places, features, overlap, between, recruited, moved, recruitment_nulls,
        positive_control: the tables of the stage compare.
        faithfulness, transfer, patching, specificity, ablation_rank: the interventions of all
            runs, with run, condition and seed in front; no rows where none was validated.
        original: data/original_study.yaml.
    """

    headlines: Mapping[str, Any]
    logs: Mapping[str, pd.DataFrame]
    evaluation: pd.DataFrame
    norms: pd.DataFrame
    drift: pd.DataFrame
    places: pd.DataFrame
    features: pd.DataFrame
    overlap: pd.DataFrame
    between: pd.DataFrame
    recruited: pd.DataFrame
    moved: pd.DataFrame
    recruitment_nulls: pd.DataFrame
    positive_control: pd.DataFrame
    faithfulness: pd.DataFrame
    transfer: pd.DataFrame
    patching: pd.DataFrame
    specificity: pd.DataFrame
    ablation_rank: pd.DataFrame
    original: Mapping[str, Any]


@dataclass(frozen=True)
class Summaries:
    """What the figures draw, the page prints and the verdicts weigh."""

    loss: pd.DataFrame
    checkpoint_loss: pd.DataFrame
    understanding: pd.DataFrame
    drift: pd.DataFrame
    mapping: pd.DataFrame
    mapping_by_place: pd.DataFrame
    change: pd.DataFrame
    overlap: pd.DataFrame
    faithfulness: pd.DataFrame
    transfer: pd.DataFrame
    patching: pd.DataFrame
    specificity: pd.DataFrame
    ablation_rank: pd.DataFrame
    baselines: pd.DataFrame


def summarise(params: Params, tables: StudyTables) -> Summaries:
    settings, checkpoints = params.statistics, params.train.checkpoint_names
    loss = loss_by_step(tables.logs)
    checkpoint_loss = loss_at_checkpoints(loss, tables.evaluation)
    known = baseline_table(
        tables.drift, tables.evaluation, tables.norms, checkpoint_loss, checkpoints
    )
    return Summaries(
        loss=loss,
        checkpoint_loss=checkpoint_loss,
        understanding=understanding(tables.evaluation, settings),
        drift=drift_summary(tables.drift, settings),
        mapping=mapping(tables.drift, tables.between, tables.evaluation, settings),
        mapping_by_place=mapping_by_place(tables.places, checkpoints[-1], settings),
        change=change_map(tables.places, focus_condition(params.runs.conditions), checkpoints[-1]),
        overlap=overlap_summary(tables.overlap),
        faithfulness=faithfulness_summary(tables.faithfulness, settings),
        transfer=transfer_summary(tables.transfer, settings),
        patching=patching_summary(tables.patching, settings),
        specificity=specificity_summary(tables.specificity, settings),
        ablation_rank=ablation_rank_summary(tables.ablation_rank, settings),
        baselines=baselines(known, settings),
    )


def baselines(known: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """The comparison of drift with cheap measures, without rows where it cannot be made."""
    if known.empty:  # no run of `mapped`, or no checkpoint with a next one
        return pd.DataFrame(columns=BASELINE_COLUMNS)
    return compare_baselines(known, settings)[BASELINE_COLUMNS].dropna(subset=["correlation"])
