"""The study as tables, and its tables summarised over runs and prompts.

What training did to the loss, what was learned by it, how far the circuits moved, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitdrift.core.study import BASE, TRAINED
from circuitdrift.statistics.intervals import hierarchical_difference, hierarchical_mean

if TYPE_CHECKING:
    from circuitdrift.params import Params, Statistics

Array = NDArray[np.float64]
Row = dict[str, Any]

MAPPED, SHUFFLED = "mapped", "shuffled"
TASK, EVALUATION, CONTROL = "task", "evaluation", "control"
PROMPTS_OF_ROLE = {"discovery": TASK, "evaluation": EVALUATION, "control": CONTROL}
RANDOM_ADAPTER = "random adapter"
INTERVAL = ["mean", "low", "high", "n_seeds", "n_prompts"]
PLACE = ["layer", "segment"]
OVERLAP_KEY = ["condition", "role", "from", "to", "threshold"]


@dataclass(frozen=True)
class Study:
    """What the report is made of.

    Attributes:
        tables: by the names of their files: those of the stage compare, of the interventions in
            all runs, and all that is summarised; beside them `headlines` (means of the headline
            numbers by condition and checkpoint), `norms` (run, checkpoint, layer, norm),
            `checkpoint_loss` and `change`.
        original: data/original_study.yaml.
    """

    params: Params
    tables: Mapping[str, pd.DataFrame]
    original: Mapping[str, Any]

    @property
    def checkpoints(self) -> list[str]:
        """In the order of training, without the base model."""
        return list(self.params.train.checkpoint_names)

    @property
    def last(self) -> str:
        return self.checkpoints[-1]

    @property
    def focus(self) -> str:
        return focus_condition(self.params.runs.conditions)

    @property
    def total_steps(self) -> int:
        return int(self.tables["loss"]["step"].max())

    @property
    def n_circuits(self) -> int:
        """Of the base model's prompts, and of each prompt under each trained or random adapter."""
        drift = self.tables["drift"]
        return int(drift["prompt"].nunique() + (drift["from"] == BASE).sum())

    def overlap_at_middle(self) -> pd.DataFrame:
        """Summary of overlap at the threshold that is shown where there is room for one."""
        overlap = self.tables["overlap_summary"]
        middle = middle_threshold(self.params.compare.thresholds)
        return overlap[(overlap["threshold"] - middle).abs() < 1e-9]


def focus_condition(conditions: Sequence[str]) -> str:
    """The condition that a page about one of them is about."""
    return MAPPED if MAPPED in conditions else conditions[0]


def checkpoint_order(checkpoints: Iterable[str]) -> list[str]:
    """Base first, then by share of training."""
    return sorted(set(checkpoints), key=lambda name: (name != BASE, name))


def middle_threshold(thresholds: Sequence[float]) -> float:
    ordered = sorted(set(thresholds))
    return ordered[len(ordered) // 2]


def where(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows with these values in these columns."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def cells(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """``value`` by run and prompt, several rows of one cell (such as random draws) averaged.

    A prompt on which some run has no value is left out: runs compare on the same prompts alone.

    Returns:
        a table ``[n_runs, n_prompts]``, both in sorted order.
    """
    means = table.groupby(["run", "prompt"])[value].mean().dropna()
    return means.unstack("prompt").dropna(axis="columns")


def grid(table: pd.DataFrame, value: str) -> Array:
    """:func:`cells` without their names: ``[n_runs, n_prompts]``."""
    return cells(table, value).to_numpy(np.float64)


def shared_cells(one: pd.DataFrame, other: pd.DataFrame, value: str) -> tuple[Array, Array]:
    """Two tables as grids over the prompts that both have: ``[n_runs, n_prompts]`` each."""
    left, right = cells(one, value), cells(other, value)
    prompts = left.columns.intersection(right.columns)
    return left[prompts].to_numpy(np.float64), right[prompts].to_numpy(np.float64)


def size(values: Array) -> dict[str, int]:
    return {"n_seeds": values.shape[0], "n_prompts": values.shape[1]}


def per_group(
    table: pd.DataFrame,
    by: Sequence[str],
    rows_of: Callable[[pd.DataFrame], Iterable[Row]],
    columns: Sequence[str],
) -> pd.DataFrame:
    """The rows of each group, in sorted order, with the group's key in front.

    Args:
        columns: of the rows, without ``by``; the table has them where there is no row, too.
    """
    rows = [
        {**dict(zip(by, key, strict=True)), **row}
        for key, group in table.groupby(list(by), sort=True)
        for row in rows_of(group)
    ]
    return pd.DataFrame(rows, columns=[*by, *columns])


def with_interval(
    table: pd.DataFrame, by: Sequence[str], value: str, settings: Statistics
) -> pd.DataFrame:
    """Mean of ``value`` over runs and prompts of each group, with its hierarchical interval.

    Args:
        table: one row per run and prompt of a group, with the columns ``by``, run and prompt.

    Returns:
        the columns ``by``, then ``mean``, ``low``, ``high``, ``n_seeds``, ``n_prompts``.
    """

    def mean(group: pd.DataFrame) -> Iterable[Row]:
        values = grid(group, value)
        if values.size:
            yield {**vars(hierarchical_mean(values, settings)), **size(values)}

    return per_group(table, by, mean, INTERVAL)


def headline_means(headlines: pd.DataFrame) -> pd.DataFrame:
    """Headline numbers by condition and checkpoint, means over the condition's runs.

    Args:
        headlines: run, condition, checkpoint, then the numbers; the base model is a run, a
            condition and a checkpoint of its own.
    """
    by = headlines.drop(columns="run").groupby(["condition", "checkpoint"], sort=True)
    return by.mean().reset_index()


def under_each_run(base: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """The runs' evaluation, with the base model's rows put under each run as checkpoint base."""
    runs = evaluation[["run", "condition", "seed"]].drop_duplicates()
    answers = base.drop(columns=["run", "condition", "seed"])
    return pd.concat([runs.merge(answers, how="cross"), evaluation], ignore_index=True)


def loss_by_step(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Loss of every step of every run, with the share of training done.

    Args:
        logs: by run, DVCLive's table with the columns step and loss.
    """
    tables = [
        log.assign(run=run, progress=log["step"] / log["step"].max())
        for run, log in sorted(logs.items())
    ]
    return pd.concat(tables, ignore_index=True)[["run", "step", "progress", "loss"]]


def loss_at_checkpoints(loss: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """Mean loss of the steps since the checkpoint before, for each run and checkpoint.

    A step's loss is that of one batch; the mean over a quarter of training says more.
    """
    rows = []
    steps = evaluation[["run", "checkpoint", "step"]].drop_duplicates()
    for run, checkpoints in steps.groupby("run", sort=True):
        log, previous = loss[loss["run"] == run], 0
        for checkpoint, step in sorted(
            zip(checkpoints["checkpoint"], checkpoints["step"], strict=True),
            key=lambda pair: (pair[1], pair[0]),
        ):
            if checkpoint == BASE:
                continue
            begin = previous if step > previous else previous - 1
            window = log[(log["step"] > begin) & (log["step"] <= step)]
            mean = window["loss"].mean()
            rows.append({"run": run, "checkpoint": checkpoint, "step": step, "loss": mean})
            previous = step
    return pd.DataFrame(rows)


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
    groups = overlap.groupby(OVERLAP_KEY, as_index=False, sort=True)
    means = groups[["jaccard", "null", "ceiling"]].mean()
    room = means["ceiling"] - means["null"]
    corrected = (means["jaccard"] - means["null"]) / room.where(room > 0)
    return means.assign(corrected=corrected, n_runs=groups["run"].nunique()["run"])


def change_map(places: pd.DataFrame, condition: str, checkpoint: str) -> pd.DataFrame:
    """Where effect was gained and lost on task prompts between base and ``checkpoint``.

    Averaged over the constraint types and runs of ``condition``; in percent of the base model's
    whole effect, so that the numbers of a map add up to the whole change.

    Returns:
        layer, segment, gained, lost.
    """
    rows = where(_task(places, checkpoint), condition=condition)
    mean = rows.groupby(PLACE, as_index=False)[["gained", "lost", "before"]].mean()
    whole = mean.pop("before").sum()
    return mean.assign(gained=100 * mean["gained"] / whole, lost=100 * mean["lost"] / whole)


def mapping_by_place(places: pd.DataFrame, checkpoint: str, settings: Statistics) -> pd.DataFrame:
    """How much more effect moved in `mapped` than in `shuffled`, by layer and segment.

    ``moved`` is the sum of |change of effect|; in percent of the base model's whole effect. The
    interval is over seeds. Empty where one of the conditions was not run.

    Returns:
        layer, segment, mean, low, high, n_seeds.
    """
    rows = _task(places, checkpoint)
    whole = rows.groupby(PLACE)["before"].mean().sum()
    runs = rows.groupby([*PLACE, "condition", "run"], as_index=False)["moved"].mean()
    runs = runs.assign(moved=100 * runs["moved"] / whole)

    def beyond(group: pd.DataFrame) -> Iterable[Row]:
        mapped, shuffled = (
            where(group, condition=name)["moved"].to_numpy()[:, None] for name in (MAPPED, SHUFFLED)
        )
        n_seeds = min(len(mapped), len(shuffled))
        if n_seeds:
            difference = vars(hierarchical_difference(mapped, shuffled, settings))
            yield {**difference, "n_seeds": n_seeds}

    return per_group(runs, PLACE, beyond, ["mean", "low", "high", "n_seeds"])


def _task(places: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    return where(places, **{"from": BASE, "to": checkpoint, "role": "discovery"})
