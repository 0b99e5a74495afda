"""Does drift tell anything of what a model learns next that cheaper measures do not?

For each word of each run and each checkpoint: how far the circuit has moved from the base model's,
four measures that cost no circuit, and what the word gains until the next checkpoint. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from circuitdrift.core.study import BASE, TRAINED
from circuitdrift.report.summaries import MAPPED, where
from circuitdrift.statistics.correlation import clustered_rank_interval, partial_rank_correlation
from circuitdrift.statistics.intervals import Interval

if TYPE_CHECKING:
    from circuitdrift.params import Statistics

DRIFT_PREDICTOR = "drift"
CHEAP = ("loss", "kl_to_base", "activation_distance", "lora_norm")
PREDICTORS = (DRIFT_PREDICTOR, *CHEAP)
OUTCOMES = ("gain_log_odds", "gain_p")
NOTHING, ALL_OTHERS, CHECKPOINT_TOO = "nothing", "all others", "all others, checkpoint"

_KEY = ["run", "word", "checkpoint"]
_PER_RUN = ["run", "checkpoint"]


def baseline_table(
    drift: pd.DataFrame,
    evaluation: pd.DataFrame,
    norms: pd.DataFrame,
    loss: pd.DataFrame,
    checkpoints: Sequence[str],
) -> pd.DataFrame:
    """What is known of each word at a checkpoint, and what it gains until the next.

    Args:
        drift: ``drift.csv``: run, condition, change, from, to, role, word, drift.
        evaluation: the tables of the runs: run, condition, checkpoint, role, word, p, log_odds,
            kl_to_base, activation_distance.
        norms: run, checkpoint, layer, norm.
        loss: run, checkpoint, loss: mean training loss since the checkpoint before.
        checkpoints: a run's checkpoints in the order of training, without the base model.

    Returns:
        run, word, checkpoint, then the :data:`PREDICTORS` at that checkpoint and the
        :data:`OUTCOMES`: log-odds in nats and probability of the right answer at the next
        checkpoint minus those at this one, means over the word's evaluation prompts. Drift is the
        mean over its discovery prompts; loss and LoRA norm are the run's, the same for all words.
        A row per run of the condition ``mapped``, word and checkpoint but the last: elsewhere
        there is nothing right to gain.
    """
    asked = where(evaluation, condition=MAPPED, role="evaluation")
    asked = asked[asked["checkpoint"].isin(checkpoints)]
    measured = ["p", "log_odds", "kl_to_base", "activation_distance"]
    words = asked.groupby(_KEY, as_index=False)[measured].mean()
    following = dict(pairwise(checkpoints))
    rows = words[words["checkpoint"].isin(following)]
    later = rows.assign(checkpoint=rows["checkpoint"].map(following))[_KEY].merge(
        words, on=_KEY, how="left", validate="one_to_one"
    )
    gains = later[["p", "log_odds"]].to_numpy() - rows[["p", "log_odds"]].to_numpy()
    return (
        rows.assign(gain_p=gains[:, 0], gain_log_odds=gains[:, 1])
        .merge(_drift_per_word(drift), on=_KEY, how="left", validate="one_to_one")
        .merge(_norm_per_run(norms), on=_PER_RUN, how="left", validate="many_to_one")
        .merge(loss[[*_PER_RUN, "loss"]], on=_PER_RUN, how="left", validate="many_to_one")
    )[[*_KEY, *PREDICTORS, *OUTCOMES]]


def compare_baselines(table: pd.DataFrame, settings: Statistics) -> pd.DataFrame:
    """How well each predictor ranks the gains, alone and beside the others.

    Args:
        table: :func:`baseline_table`.

    Returns:
        outcome, predictor, given, correlation, low, high, n, adds. ``given`` is what is held
        constant: nothing (Spearman's rank correlation), all other predictors, these and which
        checkpoint it is (how long a model has trained is known for nothing), or one cheap measure
        (of drift alone). The interval resamples whole runs; of a handful of runs it is too narrow,
        and excludes 0 in about one case in eight where it should in one of twenty. ``adds``: the
        interval excludes 0, so the predictor tells of the gain what ``given`` does not. A single
        run has no interval; where there are too few rows for a correlation there is no row.
    """
    stages = pd.get_dummies(table["checkpoint"], drop_first=True, dtype=float)
    known = table.join(stages)
    rows = []
    for outcome in OUTCOMES:
        for predictor, given, controls in _questions(list(stages.columns)):
            interval = _rank_interval(known, predictor, outcome, controls, settings)
            rows.append((outcome, predictor, given, *vars(interval).values()))
    compared = pd.DataFrame(
        rows, columns=["outcome", "predictor", "given", "correlation", "low", "high"]
    )
    adds = (compared["low"] > 0) | (compared["high"] < 0)
    return compared.assign(n=len(table), adds=adds).dropna(subset=["correlation"])


def _questions(checkpoints: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Predictor, name of what is held constant, and the columns of that.

    Args:
        checkpoints: the columns that tell a row's checkpoint.
    """
    for predictor in PREDICTORS:
        others = [name for name in PREDICTORS if name != predictor]
        yield predictor, NOTHING, []
        yield predictor, ALL_OTHERS, others
        yield predictor, CHECKPOINT_TOO, [*others, *checkpoints]
    for name in CHEAP:
        yield DRIFT_PREDICTOR, name, [name]


def _rank_interval(
    table: pd.DataFrame, x: str, y: str, controls: list[str], settings: Statistics
) -> Interval:
    if len(table) < len(controls) + 3:
        return Interval(math.nan, math.nan, math.nan)
    columns = (table[x].to_numpy(), table[y].to_numpy(), table[controls].to_numpy())
    if table["run"].nunique() == 1:
        return Interval(partial_rank_correlation(*columns), math.nan, math.nan)
    return clustered_rank_interval(*columns, table["run"].to_numpy(), settings)


def _drift_per_word(drift: pd.DataFrame) -> pd.DataFrame:
    """Mean drift from the base model over a word's discovery prompts."""
    rows = where(drift, **{"change": TRAINED, "from": BASE, "role": "discovery"})
    return rows.assign(checkpoint=rows["to"]).groupby(_KEY, as_index=False)["drift"].mean()


def _norm_per_run(norms: pd.DataFrame) -> pd.DataFrame:
    """Frobenius norm of the change of all weights, from those of the layers."""
    squares = norms.assign(lora_norm=norms["norm"] ** 2)
    whole = squares.groupby(_PER_RUN, as_index=False)["lora_norm"].sum()
    return whole.assign(lora_norm=np.sqrt(whole["lora_norm"]))
