"""What is known of one experiment: the tables that it keeps, and what was measured from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from circuitdrift.config.params import Params


@dataclass(frozen=True)
class ExperimentTables:
    """The tables of one experiment, as its commit keeps them.

    Attributes:
        evaluation: a row per prompt, run and checkpoint, base among the checkpoints of each run.
        loss: run, step, progress, loss.
        drift: a row per run, change, pair of checkpoints and prompt.
        moved: run, condition, seed, change (trained, random-0), n_tested, n_grown, n_shrunk.
        overlap: a row per run, pair of checkpoints, role and threshold.
        drift_summary, mapping, faithfulness: the summaries of the stage report.
        metrics: reports/metrics/study.json.
    """

    evaluation: pd.DataFrame
    loss: pd.DataFrame
    drift: pd.DataFrame
    moved: pd.DataFrame
    overlap: pd.DataFrame
    drift_summary: pd.DataFrame
    mapping: pd.DataFrame
    faithfulness: pd.DataFrame
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One finished experiment, at its last checkpoint.

    Attributes:
        arms: of the sweep that it belongs to.
        revision: the git commit that DVC keeps it in.
        steps: optimiser steps at the last checkpoint.
        measures: measure, mean, low, high, n_seeds, n_prompts; a row each that was measured.
        prompts: by measure, its value on each prompt: run, prompt, value.
    """

    name: str
    arms: tuple[str, ...]
    revision: str
    params: Params
    steps: int
    measures: pd.DataFrame
    prompts: Mapping[str, pd.DataFrame]
