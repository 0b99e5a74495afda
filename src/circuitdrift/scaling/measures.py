"""The measures of one experiment: its tables in, a row per measure out. Pure.

All are of the last checkpoint and of one condition, `mapped` where it was run. A measure that the
experiment does not have (no random adapters, nothing validated) has no row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from circuitdrift.config.params import Params
from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE, TRAINED
from circuitdrift.scaling import names as of
from circuitdrift.scaling.tables import ExperimentTables
from circuitdrift.statistics.intervals import hierarchical_mean
from circuitdrift.summaries import faithfulness_curves as curves
from circuitdrift.summaries.drift import middle_threshold
from circuitdrift.summaries.grids import (
    CONTROL,
    EVALUATION,
    INTERVAL,
    MAPPED,
    RANDOM_ADAPTER,
    SHUFFLED,
    TASK,
    Array,
    focus_condition,
    shared_cells,
    size,
)
from circuitdrift.summaries.interventions import RANDOM
from circuitdrift.summaries.mapping import BEYOND_RANDOM
from circuitdrift.summaries.training import loss_at_checkpoints

Row = dict[str, Any]

# The report's own tables of transfer and of circuits rest on it.
ABLATION = "mean"


def measure_rows(params: Params, tables: ExperimentTables) -> pd.DataFrame:
    """Every measure of one experiment.

    Intervals are over seeds and prompts as in the report. One seed leaves those of measures that
    have no value per prompt empty.

    Returns:
        measure, mean, low, high, n_seeds, n_prompts.
    """
    condition = focus_condition(params.runs.conditions)
    last = params.train.checkpoint_names[-1]
    rows = [
        *_understanding(tables.evaluation, condition, last, params.statistics),
        *_chance(tables.evaluation, condition, last),
        *_loss(tables, condition, last, params.statistics),
        *_drift(tables, condition, last),
        *_overlap(params, tables.overlap, condition, last),
        *_recruited(params, tables),
        *_moved(tables.moved, condition, params.statistics),
        *_faithfulness(tables.faithfulness, condition, last, params.validation.transfer_size),
    ]
    table = pd.DataFrame(rows, columns=["measure", *INTERVAL])
    return table.astype({"n_seeds": "Int64", "n_prompts": "Int64"})


def values_on_prompts(params: Params, tables: ExperimentTables) -> dict[str, pd.DataFrame]:
    """By measure, its value on each prompt of each run: run, prompt, value.

    What two experiments are compared by, prompt against prompt.
    """
    condition = focus_condition(params.runs.conditions)
    last = params.train.checkpoint_names[-1]
    asked = _where(tables.evaluation, condition=condition, checkpoint=last, role=EVALUATION)
    drift = _where(tables.drift, condition=condition, change=TRAINED, **{"from": BASE}, to=last)
    found = {
        of.ACCURACY: (asked, "correct_in_type"),
        of.P_ANSWER: (asked, "p"),
        of.DRIFT: (drift[drift["role"] == "discovery"], "drift"),
    }
    return {
        measure: rows[["run", "prompt", column]].rename(columns={column: "value"})
        for measure, (rows, column) in found.items()
    }


def steps_at_end(params: Params, tables: ExperimentTables) -> int:
    """Optimiser steps at the last checkpoint."""
    last = params.train.checkpoint_names[-1]
    return int(_where(tables.evaluation, checkpoint=last)["step"].max())


def _understanding(
    evaluation: pd.DataFrame, condition: str, last: str, settings: Statistics
) -> Iterator[Row]:
    rows = _where(evaluation, condition=condition)
    asked = {
        "correct_in_type": (EVALUATION, of.ACCURACY, of.BASE_ACCURACY, of.ACCURACY_GAIN),
        "p": (EVALUATION, of.P_ANSWER, of.BASE_P_ANSWER, of.P_GAIN),
        "false_positive": ("unseen", of.FALSE_POSITIVE, of.BASE_FALSE_POSITIVE, None),
        "loss": (CONTROL, None, None, of.FORGETTING),
    }
    for column, (role, after, before, gain) in asked.items():
        of_role = rows[rows["role"] == role]
        at_end, at_base = shared_cells(
            of_role[of_role["checkpoint"] == last], of_role[of_role["checkpoint"] == BASE], column
        )
        # One base model stands under every run: its interval is over prompts.
        grids = {after: at_end, before: at_base[:1], gain: at_end - at_base}
        for measure, grid in grids.items():
            if measure is not None and grid.size:
                interval = vars(hierarchical_mean(grid, settings))
                yield {"measure": measure, **interval, **size(grid)}


def _chance(evaluation: pd.DataFrame, condition: str, last: str) -> Iterator[Row]:
    """The accuracy of a guess among the answers of a prompt's type: each word has its own."""
    rows = _where(evaluation, condition=condition, checkpoint=last, role=EVALUATION)
    by_guess = 1 / rows.groupby("type")["word"].transform("nunique")
    yield {"measure": of.CHANCE, **_alone(float(by_guess.mean()), rows["run"].nunique())}


def _loss(
    tables: ExperimentTables, condition: str, last: str, settings: Statistics
) -> Iterator[Row]:
    evaluation = _where(tables.evaluation, condition=condition)
    at_end = _where(loss_at_checkpoints(tables.loss, evaluation), checkpoint=last)
    yield {"measure": of.LOSS, **_over_seeds(at_end["loss"].to_numpy(np.float64), settings)}


def _drift(tables: ExperimentTables, condition: str, last: str) -> Iterator[Row]:
    summary = _where(tables.drift_summary, checkpoint=last)
    beyond = _where(tables.mapping, checkpoint=last, condition=condition, measure=BEYOND_RANDOM)
    for measure, rows in {
        of.DRIFT: _where(summary, condition=condition, prompts=TASK),
        of.DRIFT_CONTROL: _where(summary, condition=condition, prompts=CONTROL),
        of.DRIFT_RANDOM: _where(summary, condition=RANDOM_ADAPTER, prompts=TASK),
        of.DRIFT_BEYOND: _where(beyond, prompts=TASK),
    }.items():
        yield from _named(measure, rows)


def _overlap(params: Params, overlap: pd.DataFrame, condition: str, last: str) -> Iterator[Row]:
    """Of the node sets of discovery prompts with the base model's, run by run.

    The report corrects the means over runs; here each run is corrected, so that seeds give an
    interval. The two differ by less than runs do.
    """
    threshold = middle_threshold(params.compare.thresholds)
    rows = _where(overlap, condition=condition, role="discovery", **{"from": BASE}, to=last)
    rows = rows[np.isclose(rows["threshold"], threshold)].sort_values("run")
    found = {
        of.OVERLAP: rows["jaccard"],
        of.OVERLAP_NULL: rows["null"],
        of.OVERLAP_CEILING: rows["ceiling"],
        of.OVERLAP_CORRECTED: rows["corrected"],
        of.OVERLAP_BEYOND: (rows["jaccard"] - rows["null"]) / (1 - rows["null"]),
    }
    for measure, values in found.items():
        known = values.to_numpy(np.float64)
        if len(known) and np.isfinite(known).all():
            yield {"measure": measure, **_over_seeds(known, params.statistics)}


def _recruited(params: Params, tables: ExperimentTables) -> Iterator[Row]:
    """The search compares runs of two conditions; without two of each it finds none by design."""
    if recruited_testable(params):
        n_seeds = len(params.runs.seeds)
        yield {"measure": of.RECRUITED, **_alone(tables.metrics["n_recruited"], n_seeds)}


def recruited_testable(params: Params) -> bool:
    return {MAPPED, SHUFFLED} <= set(params.runs.conditions) and len(params.runs.seeds) > 1


def _moved(moved: pd.DataFrame, condition: str, settings: Statistics) -> Iterator[Row]:
    """Counts of moved features; random adapters' are averaged over draws, run by run."""
    rows = _where(moved, condition=condition)
    rows = rows.assign(n_moved=rows["n_grown"] + rows["n_shrunk"])
    trained = rows[rows["change"] == TRAINED].set_index("run").sort_index()
    random = rows[rows["change"] != TRAINED].groupby("run", sort=True)["n_moved"].mean()
    found = {
        of.MOVED: trained["n_moved"],
        of.GROWN: trained["n_grown"],
        of.SHRUNK: trained["n_shrunk"],
        of.TESTED: trained["n_tested"],
        of.MOVED_RANDOM: random,
        of.MOVED_BEYOND: (trained["n_moved"] - random).dropna(),
    }
    for measure, values in found.items():
        if len(values):
            yield {"measure": measure, **_over_seeds(values.to_numpy(np.float64), settings)}


def _faithfulness(summary: pd.DataFrame, condition: str, last: str, kept: float) -> Iterator[Row]:
    rows = _where(summary, condition=condition, ablation=ABLATION)
    at_size = rows[np.isclose(rows["size"].astype(np.float64), kept)]
    areas = {
        of.CMD: (last, "own", curves.CMD),
        of.CMD_RANDOM: (last, RANDOM, curves.CMD),
        of.CMD_BASE: (last, BASE, curves.CMD),
        of.CMD_OF_BASE: (BASE, "own", curves.CMD),
        of.CPR: (last, "own", curves.CPR),
        of.CPR_RANDOM: (last, RANDOM, curves.CPR),
    }
    for name, (checkpoint, circuit, measure) in areas.items():
        found = _where(rows, checkpoint=checkpoint, circuit=circuit, measure=measure)
        yield from _named(name, found)
    for name, circuit in ((of.KEPT, "own"), (of.KEPT_RANDOM, RANDOM)):
        found = _where(at_size, checkpoint=last, circuit=circuit, measure=curves.FAITHFULNESS)
        yield from _named(name, found)


def _named(measure: str, rows: pd.DataFrame) -> Iterator[Row]:
    """The rows of a summary under the name of a measure, without those that are not defined."""
    for row in rows.dropna(subset=["mean"]).to_dict("records"):
        yield {"measure": measure, **{column: row[column] for column in INTERVAL}}


def _over_seeds(values: Array, settings: Statistics) -> Row:
    """Mean over runs, with an interval where there are two."""
    if len(values) < 2:
        return _alone(float(values.mean()), len(values))
    interval = vars(hierarchical_mean(values[:, None], settings))
    return {**interval, "n_seeds": len(values), "n_prompts": None}


def _alone(value: float, n_seeds: int) -> Row:
    return {"mean": value, "low": math.nan, "high": math.nan, "n_seeds": n_seeds, "n_prompts": None}


def _where(table: pd.DataFrame, **where: str) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table
