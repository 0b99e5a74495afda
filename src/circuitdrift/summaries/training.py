"""What training did to the loss, and what was learned by it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.identifiers import BASE
from circuitdrift.summaries.grids import with_interval


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


def understanding(evaluation: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """Probability of the right answer on evaluation prompts, by constraint and checkpoint."""
    rows = evaluation[evaluation["role"] == "evaluation"]
    return with_interval(rows, ["condition", "type", "word", "checkpoint"], "p", settings)
