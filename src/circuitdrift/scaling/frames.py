"""Experiments of a sweep as tables: params and measures joined. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from circuitdrift.config.params import Params
from circuitdrift.scaling import names as of
from circuitdrift.scaling.tables import Experiment
from circuitdrift.summaries.grids import INTERVAL
from circuitdrift.sweeps.plan import Arm, Sweep

# What experiments.csv shows of each experiment; measures.csv has the rest, and the intervals.
HEADLINES = (
    *(of.ACCURACY, of.BASE_ACCURACY, of.CHANCE, of.P_ANSWER, of.BASE_P_ANSWER, of.LOSS),
    *(of.DRIFT, of.DRIFT_CONTROL, of.DRIFT_RANDOM, of.DRIFT_BEYOND),
    *(of.OVERLAP, of.OVERLAP_NULL, of.OVERLAP_CORRECTED, of.OVERLAP_BEYOND),
    *(of.RECRUITED, of.MOVED, of.MOVED_RANDOM, of.MOVED_BEYOND),
    *(of.CMD, of.CMD_RANDOM, of.CPR, of.KEPT, of.FORGETTING, of.FALSE_POSITIVE),
)
PRODUCT, TOGETHER, LADDER = "product", "together", "ladder"
SIZE, EPOCHS = "dataset.n_examples", "train.epochs"


def value_at(params: Params, key: str) -> Any:
    """The value at a dotted key of params.yaml; lists as text."""
    value: Any = params
    for name in key.split("."):
        value = getattr(value, name)
    return str(list(value)) if isinstance(value, tuple) else value


def flattened(params: Params) -> dict[str, Any]:
    """Every value of params.yaml by its dotted key."""
    return dict(_leaves(params.model_dump(mode="json"), ""))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def varied_keys(sweep: Sweep) -> list[str]:
    """The keys in which the sweep's experiments differ, in sorted order."""
    changed = {key for member in sweep.members for key in member.changes}
    return sorted(
        key
        for key in changed
        if len({value_at(member.params, key) for member in sweep.members}) > 1
    )


def experiments_table(experiments: Sequence[Experiment], keys: Sequence[str]) -> pd.DataFrame:
    """A row per experiment: name, arms, revision, the varied params, steps, headline measures."""
    return pd.DataFrame(
        [
            {
                "experiment": experiment.name,
                "arms": ";".join(experiment.arms),
                "revision": experiment.revision,
                **{key: value_at(experiment.params, key) for key in keys},
                "steps": experiment.steps,
                **{measure: mean(experiment, measure) for measure in HEADLINES},
            }
            for experiment in experiments
        ]
    )


def measures_table(experiments: Sequence[Experiment]) -> pd.DataFrame:
    """Tidy: experiment, measure, mean, low, high, n_seeds, n_prompts."""
    tables = [experiment.measures.assign(experiment=experiment.name) for experiment in experiments]
    return pd.concat(tables, ignore_index=True)[["experiment", "measure", *INTERVAL]]


def points(
    experiments: Sequence[Experiment], keys: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """What figures draw: experiment, steps, the varied params, measure, mean, low, high."""
    return pd.DataFrame(
        [
            {
                "experiment": experiment.name,
                "steps": experiment.steps,
                **{key: value_at(experiment.params, key) for key in keys},
                "measure": measure,
                **row_of(experiment, measure),
            }
            for experiment in experiments
            for measure in measures
            if measured(experiment, measure)
        ],
        columns=["experiment", "steps", *keys, "measure", "mean", "low", "high"],
    )


def members_of(experiments: Sequence[Experiment], arm: Arm) -> list[Experiment]:
    """The finished experiments of an arm, in its order."""
    by_name = {experiment.name: experiment for experiment in experiments}
    return [by_name[name] for name in arm.members if name in by_name]


def arms_of(sweep: Sweep, *kinds: str) -> list[Arm]:
    return [arm for arm in sweep.arms if arm.kind in kinds]


def on_the_same_recipe(sweep: Sweep, experiments: Sequence[Experiment]) -> list[Experiment]:
    """Those of the arms that vary a few keys: a ladder's rungs differ in too much to be compared
    by their steps."""
    names = {name for arm in arms_of(sweep, PRODUCT, TOGETHER) for name in arm.members}
    return [experiment for experiment in experiments if experiment.name in names]


def measured(experiment: Experiment, measure: str) -> bool:
    return bool((experiment.measures["measure"] == measure).any())


def mean(experiment: Experiment, measure: str) -> float:
    return row_of(experiment, measure)["mean"]


def row_of(experiment: Experiment, measure: str) -> dict[str, float]:
    """mean, low, high; all NaN where it was not measured."""
    rows = experiment.measures[experiment.measures["measure"] == measure]
    if rows.empty:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    return {name: float(rows[name].iloc[0]) for name in ("mean", "low", "high")}
