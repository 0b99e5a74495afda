"""From the study's tidy tables to the small tables that the figures draw and the report prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from circuitdrift.config import Report
from circuitdrift.identifiers import BASE
from circuitdrift.statistics import bootstrap_mean

TASK, CONTROL = "task", "control"
_ROLE_NAMES = {"discovery": TASK, "control": CONTROL}


def checkpoint_order(checkpoints: Sequence[str]) -> list[str]:
    """Base first, then by share of training."""
    return sorted(set(checkpoints), key=lambda name: (name != BASE, name))


def with_interval(
    table: pd.DataFrame, by: Sequence[str], value: str, settings: Report
) -> pd.DataFrame:
    """Mean of ``value`` over the prompts of each group, with a bootstrap interval over prompts.

    Runs of one condition are averaged prompt by prompt first: prompts are what the interval
    generalises over.

    Returns:
        the columns ``by``, then ``mean``, ``low``, ``high``, ``n_prompts``.
    """
    per_prompt = table.groupby([*by, "prompt"], as_index=False, sort=True)[value].mean()
    rows: list[dict[str, Any]] = []
    for key, group in per_prompt.groupby(list(by), sort=True):
        interval = bootstrap_mean(
            group[value], settings.confidence, settings.bootstrap_samples, settings.seed
        )
        rows.append({**dict(zip(by, key, strict=True)), **vars(interval), "n_prompts": len(group)})
    return pd.DataFrame(rows)


def loss_by_step(logs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Loss of every step of every run, with the share of training done.

    Args:
        logs: by run, DVCLive's table with the columns step and loss.
    """
    tables = [
        log.assign(run=run, progress=log["step"] / log["step"].max())[
            ["run", "step", "progress", "loss"]
        ]
        for run, log in sorted(logs.items())
    ]
    return pd.concat(tables, ignore_index=True)


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
            rows.append(
                {"run": run, "checkpoint": checkpoint, "step": step, "loss": window["loss"].mean()}
            )
            previous = step
    return pd.DataFrame(rows)


def understanding(evaluation: pd.DataFrame, settings: Report) -> pd.DataFrame:
    """Probability of the right answer on evaluation prompts, by constraint and checkpoint."""
    rows = evaluation[evaluation["role"] == "evaluation"]
    return with_interval(rows, ["condition", "type", "word", "checkpoint"], "p", settings)


def drift_from_base(drift: pd.DataFrame, settings: Report) -> pd.DataFrame:
    """Drift from the base model by condition, kind of prompt and checkpoint."""
    rows = drift[drift["from"] == BASE]
    rows = rows.assign(prompts=rows["role"].map(_ROLE_NAMES), checkpoint=rows["to"])
    return with_interval(rows, ["condition", "prompts", "checkpoint"], "drift", settings)


def change_map(places: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """Where effect was gained and lost on task prompts between base and ``checkpoint``.

    Averaged over constraint types, runs and conditions as they stand in ``places``; in percent of
    the base model's whole effect, so that the numbers of a map add up to the whole change.

    Returns:
        layer, segment, gained, lost.
    """
    rows = places[
        (places["from"] == BASE) & (places["to"] == checkpoint) & (places["role"] == "discovery")
    ]
    mean = rows.groupby(["layer", "segment"], as_index=False)[["gained", "lost", "before"]].mean()
    whole = mean["before"].sum()
    return mean.assign(gained=100 * mean["gained"] / whole, lost=100 * mean["lost"] / whole)[
        ["layer", "segment", "gained", "lost"]
    ]
