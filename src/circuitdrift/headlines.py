"""The study in a few numbers: means over the runs of a condition, and what was found in all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from circuitdrift.identifiers import BASE, Run
from circuitdrift.summaries.grids import CONTROL, MAPPED, TASK, focus_condition
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
        "n_recruited": recruited_counts(tables.recruited)[RECRUITED],
        **_where_available(summaries, last),
    }
    return {name: round(float(value), 4) for name, value in metrics.items()}


def _where_available(summaries: Summaries, last: str) -> dict[str, float]:
    rows = {
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
