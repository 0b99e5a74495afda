"""The study in a few numbers: means over the runs of a condition, and what was found in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from circuitdrift.identifiers import BASE, TRAINED, Run, random_change
from circuitdrift.summaries.drift import middle_threshold
from circuitdrift.summaries.faithfulness_curves import CMD
from circuitdrift.summaries.grids import (
    CONTROL,
    MAPPED,
    RANDOM_ADAPTER,
    SHUFFLED,
    TASK,
    focus_condition,
)
from circuitdrift.summaries.interventions import RECRUITED, SUFFICIENCY
from circuitdrift.summaries.mapping import ACCURACY, DRIFT
from circuitdrift.summaries.study import StudyTables, Summaries

if TYPE_CHECKING:
    from circuitdrift.config.params import Params


def headline_means(headlines: Mapping[str, Any]) -> pd.DataFrame:
    """Headline numbers by condition and checkpoint, means over the condition's runs.

    The base model stands alone under the condition base.
    """
    rows = [
        {
            "condition": BASE if run == BASE else Run.parse(run).condition,
            "checkpoint": checkpoint,
            **measures,
        }
        for run, of_run in headlines.items()
        for checkpoint, measures in of_run.items()
    ]
    means = pd.DataFrame(rows).groupby(["condition", "checkpoint"], sort=True).mean()
    return means.reset_index()


def limits(params: Params, tables: StudyTables) -> dict[str, dict[str, float]]:
    """What bounds the second verdict, before training and after, means over a condition's runs:
    how much of the probability unseen words get, and how often a meaning finds its word.
    """
    means = headline_means(tables.headlines).set_index(["condition", "checkpoint"])
    last = params.train.checkpoint_names[-1]
    found = {BASE: means.loc[(BASE, BASE)]}
    found |= {condition: means.loc[(condition, last)] for condition in params.runs.conditions}
    return {
        condition: {
            measure: round(float(row[measure]), 4)
            for measure in ("false_positive", "reverse_accuracy")
        }
        for condition, row in found.items()
    }


def study_metrics(params: Params, tables: StudyTables, summaries: Summaries) -> dict[str, float]:
    """The few numbers that experiments are compared by, means over the runs of a condition.

    Of the condition ``mapped`` where it was run, else of the first. What compares conditions or
    interventions is there where they were run.
    """
    condition = focus_condition(params.runs.conditions)
    last = params.train.checkpoint_names[-1]
    means = headline_means(tables.headlines).set_index(["condition", "checkpoint"])
    final, base = means.loc[(condition, last)], means.loc[(BASE, BASE)]
    drift = {
        row["prompts"]: row["mean"]
        for row in records_where(summaries.drift, condition=condition, checkpoint=last)
    }
    loss = summaries.checkpoint_loss
    of_condition = loss["run"].map(lambda run: Run.parse(run).condition == condition)
    metrics = {
        "accuracy": final["accuracy"],
        "p_answer": final["p"],
        "loss": loss[of_condition & (loss["checkpoint"] == last)]["loss"].mean(),
        "drift_task": drift[TASK],
        "drift_control": drift[CONTROL],
        "forgetting": final["control_loss"] - base["control_loss"],
        "overlap_beyond_chance": _overlap_beyond_chance(params, summaries, condition),
        **_moved(tables.moved, condition),
        **_recruited_if_sought(tables),
        **_where_available(summaries, condition, last),
    }
    return {name: round(float(value), 4) for name, value in metrics.items()}


def _overlap_beyond_chance(params: Params, summaries: Summaries, condition: str) -> float:
    """(J - J_null) / (1 - J_null) of the last checkpoint's node sets with the base model's, on
    discovery prompts: unlike the overlap corrected for chance it needs no second seed."""
    overlap = summaries.overlap
    threshold = middle_threshold(params.compare.thresholds)
    (row,) = records_where(
        overlap[(overlap["threshold"] - threshold).abs() < 1e-9],
        **{"condition": condition, "role": "discovery", "from": BASE},
        to=params.train.checkpoint_names[-1],
    )
    return (row["jaccard"] - row["null"]) / (1 - row["null"])


def _moved(moved: pd.DataFrame, condition: str) -> dict[str, float]:
    """Features that grew or shrank in a run, and as many as chance would move."""
    counts = moved[moved["condition"] == condition].assign(n=moved["n_grown"] + moved["n_shrunk"])
    of_change = counts.groupby("change")["n"].mean()
    names = {TRAINED: "n_moved", random_change(0): "n_moved_random"}
    return {names[str(change)]: float(count) for change, count in of_change.items()}


def _recruited_if_sought(tables: StudyTables) -> dict[str, float]:
    """Nothing where there were too few runs to search with: that is not the same as none."""
    if not records_where(tables.recruitment_nulls, comparison=f"{MAPPED} vs {SHUFFLED}"):
        return {}
    return {"n_recruited": recruited_counts(tables.recruited)[RECRUITED]}


def _where_available(summaries: Summaries, condition: str, last: str) -> dict[str, float]:
    rows = {
        "drift_random": records_where(
            summaries.drift, condition=RANDOM_ADAPTER, checkpoint=last, prompts=TASK
        ),
        "cmd": records_where(
            summaries.faithfulness,
            **{"condition": condition, "checkpoint": last, "circuit": "own"},
            measure=CMD,
            ablation="mean",
        ),
        "accuracy_mapped_minus_shuffled": records_where(
            summaries.mapping, measure=ACCURACY, checkpoint=last
        ),
        "drift_beyond_shuffled": records_where(
            summaries.mapping, measure=DRIFT, checkpoint=last, prompts=TASK
        ),
        "patched_fraction": records_where(
            summaries.patching, condition=MAPPED, direction=SUFFICIENCY, nodes=RECRUITED
        ),
    }
    return {
        name: found[0]["mean"]
        for name, found in rows.items()
        if found and math.isfinite(found[0]["mean"])
    }


def recruited_counts(recruited: pd.DataFrame) -> dict[str, int]:
    return {
        **{
            direction: int((recruited["direction"] == direction).sum())
            for direction in (RECRUITED, "retired")
        },
        "words": int(recruited["word"].nunique()),
    }


def records_where(table: pd.DataFrame, **where: str) -> list[dict[str, Any]]:
    for column, value in where.items():
        table = table[table[column] == value]
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
