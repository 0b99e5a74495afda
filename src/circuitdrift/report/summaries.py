"""The study as tables, and its tables summarised: runs averaged within a word, words the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from circuitdrift.core.paths import SCALING
from circuitdrift.core.study import ASSIGNED, BASE, TRAINED, Run
from circuitdrift.statistics.coverage import DIFFERENCE, PROBABILITY, Model, checked_interval
from circuitdrift.statistics.words import pooled_variance

if TYPE_CHECKING:
    from circuitdrift.params import Params

# What a measure is the mean of: the prompts' role and a column of `evaluation`, and whether it
# counts (right or wrong) or is a number of its own.
ANSWERS = {
    "accuracy": ("near", "correct"),
    "p": ("near", "p"),
    "frame": ("near", "frame"),
    "choice": ("near", "choice"),
    "discrimination": ("near", "discrimination"),
    "substitution": ("substitution", "correct"),
    "frame_unseen": ("unseen", "frame"),
    "far_accuracy": ("far", "correct"),
    "reverse_accuracy": ("reverse", "correct"),
    "control_loss": ("control", "loss"),
}
CIRCUITS = {
    "drift": ("near", "drift"),
    "gain": ("near", "gain"),
    "drift_control": ("control", "drift"),
}
# Counted: the mean of right and wrong, or of the unseen words that a word beats.
COUNTED = ("accuracy", "discrimination", "substitution", "far_accuracy", "reverse_accuracy")
PROBABILITIES = ("p", "frame", "choice", "frame_unseen")
CONTROLS = ("control_loss", "drift_control")

# What a sweep says, by its own summary (circuitdrift.sweep.summary).
SWEEP_MEASURES = SCALING / "measures.csv"
SWEEP_CRITERIA = SCALING / "criteria.csv"

CHOSEN = "chosen"
NULLS = ("effect null", "activation null")


@dataclass(frozen=True)
class Study:
    """What the report is made of.

    Attributes:
        tables: by the names of their files. From the stages before: evaluation, loss (run,
            condition, seed, step, progress, loss), lora_norms, drift, between_runs, consistency,
            graphs, contrast, interchange, faithfulness, transfer, specificity; a table of
            interventions or graphs is its columns alone where there were none; examples (type,
            word, meaning, training, prompt). From the sweep, empty where it was not run: rq3
            (criteria.csv) and sweep (measures.csv). Summaries: checkpoint_loss, by_word,
            by_condition, between, closed, and of :mod:`circuitdrift.report.verdicts` criteria,
            comparisons, steps, words, coverage.
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
    def conditions(self) -> list[str]:
        """In the order of params.yaml, without the base model."""
        return list(self.params.runs.conditions)

    @property
    def words(self) -> list[tuple[str, str]]:
        """(type, word) of the trained words, sorted."""
        near = where(self.tables["evaluation"], role="near")
        pairs = near[["type", "word"]].drop_duplicates().sort_values(["type", "word"])
        return list(pairs.itertuples(index=False, name=None))

    @property
    def total_steps(self) -> int:
        return int(self.tables["loss"]["step"].max())


def where(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows with these values in these columns."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def loss_by_step(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """run, condition, seed, step, progress, loss: every step of every run.

    Args:
        logs: by run, DVCLive's table with the columns step and loss.
    """
    tables = [
        log[["step", "loss"]].assign(
            run=run,
            condition=Run.parse(run).condition,
            seed=Run.parse(run).seed,
            progress=log["step"] / log["step"].max(),
        )
        for run, log in sorted(logs.items())
    ]
    columns = ["run", "condition", "seed", "step", "progress", "loss"]
    return pd.concat(tables, ignore_index=True)[columns]


def checkpoint_loss(loss: pd.DataFrame, evaluation: pd.DataFrame) -> pd.DataFrame:
    """run, condition, checkpoint, step, loss: mean of the steps since the checkpoint before.

    A step's loss is that of one batch; the mean over a quarter of training says more. A checkpoint
    on the step of the one before shows that step alone.
    """
    steps = evaluation[["run", "condition", "checkpoint", "step"]].drop_duplicates()
    steps = steps[steps["checkpoint"] != BASE].sort_values(["run", "step", "checkpoint"])
    before = steps.groupby("run")["step"].shift(fill_value=0)
    begin = before.where(steps["step"] > before, before - 1)
    means = [
        loss.loc[(loss["run"] == run) & loss["step"].between(first + 1, end), "loss"].mean()
        for run, first, end in zip(steps["run"], begin, steps["step"], strict=True)
    ]
    return steps.assign(loss=means).reset_index(drop=True)


def of_units(study: Study) -> pd.DataFrame:
    """condition, checkpoint, measure, type, unit, mean, trials: of words, of control prompts.

    Prompts are averaged within a run, then runs; ``trials`` counts both. The base model is a
    condition and a checkpoint of its own.
    """
    evaluation, drift = study.tables["evaluation"], study.tables["drift"]
    answers = evaluation.assign(
        choice=evaluation["p"] / evaluation["frame"],
        unit=evaluation["word"].where(evaluation["role"] != "control", evaluation["prompt"]),
    )
    moved = drift[(drift["from"] == BASE) & (drift["change"] == TRAINED)]
    moved = moved.assign(checkpoint=moved["to"])
    tables = []
    for source, measures in ((answers, ANSWERS), (moved, CIRCUITS)):
        for measure, (role, column) in measures.items():
            rows = where(source, role=role).fillna({"type": ""})
            keys = ["condition", "checkpoint", "type", "unit"]
            runs = rows.groupby([*keys, "run"])[column].agg(["mean", "count"]).dropna()
            units = runs.groupby(keys, as_index=False).agg(
                mean=("mean", "mean"), trials=("count", "sum")
            )
            tables.append(units.assign(measure=measure))
    table = pd.concat(tables, ignore_index=True)
    return table[["condition", "checkpoint", "measure", "type", "unit", "mean", "trials"]]


def by_word(units: pd.DataFrame) -> pd.DataFrame:
    """condition, checkpoint, measure, type, word, mean: over runs and prompts.

    Of frame_unseen the words are the unseen ones; control prompts, together, have word and type "".
    """
    table = units.assign(word=units["unit"].mask(units["measure"].isin(CONTROLS), ""))
    keys = ["condition", "checkpoint", "measure", "type", "word"]
    return table.groupby(keys, as_index=False, sort=False)["mean"].mean()


def by_condition(units: pd.DataFrame, params: Params) -> pd.DataFrame:
    """condition, checkpoint, measure, mean, low, high, n_words, coverage: over words.

    Of the controls n_words counts prompts. low and high are empty where the interval is withheld.
    """
    keys = ["condition", "checkpoint", "measure"]
    rows = []
    for (condition, checkpoint, measure), group in units.groupby(keys, sort=False):
        model = DIFFERENCE
        if measure in COUNTED:
            model = Model("share", trials=int(group["trials"].min()))
        elif measure in PROBABILITIES:
            model = PROBABILITY
        values = checked_interval(group["mean"], list(group["type"]), model, params)
        numbers = (values.mean, values.low, values.high, len(group), values.coverage)
        rows.append((condition, checkpoint, measure, *numbers))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "n_words", "coverage"])


def between(study: Study) -> pd.DataFrame:
    """checkpoint, what, role, mean: mean drift of two circuits, words alike.

    what: different runs of one condition | one assignment (of assigned runs) | different
    assignments (at the last checkpoint) | one run, checkpoint to the next (the earlier one stands
    in ``checkpoint``).
    """
    pairs, drift = study.tables["between_runs"], study.tables["drift"]
    pairs = pairs[pairs["checkpoint_a"] == pairs["checkpoint_b"]]
    one, other = (pairs[name].map(condition_of) for name in ("run_a", "run_b"))
    assigned = one.isin(list(ASSIGNED)) & other.isin(list(ASSIGNED))
    steps = drift[(drift["change"] == TRAINED) & (drift["from"] != BASE)]
    kinds = {
        "different runs of one condition": pairs[one == other],
        "one assignment": pairs[assigned & (one == other)],
        "different assignments": pairs[assigned & (one != other)],
        "one run, checkpoint to the next": steps.assign(checkpoint_a=steps["from"]),
    }
    tables = [
        rows.groupby(["checkpoint_a", "role"], as_index=False)["drift"].mean().assign(what=what)
        for what, rows in kinds.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    table = table.rename(columns={"checkpoint_a": "checkpoint", "drift": "mean"})
    return table[["checkpoint", "what", "role", "mean"]]


def closed(study: Study) -> pd.DataFrame:
    """k, nodes, type, word, value, low, high, coverage, left_out: distance closed by interchange.

    With word "" the mean over the words that are not left out, with its interval.
    """
    words = closed_by_word(study)
    rows = []
    for (k, nodes), group in words.groupby(["k", "nodes"], sort=True):
        inside = group[group["left_out"] == ""]
        model = ratio_model(inside["distance"], list(inside["type"]), study.params)
        mean = checked_interval(inside["value"], list(inside["type"]), model, study.params)
        rows.append((k, nodes, "", "", mean.mean, mean.low, mean.high, mean.coverage, ""))
    columns = ["k", "nodes", "type", "word", "value", "low", "high", "coverage", "left_out"]
    means = pd.DataFrame(rows, columns=columns)
    return pd.concat([words.reindex(columns=columns), means], ignore_index=True)


def closed_by_word(study: Study) -> pd.DataFrame:
    """k, nodes, type, word, value, distance (donor to recipient, logits), left_out (a reason)."""
    rows, least = study.tables["interchange"], study.params.verdicts.min_donor_difference
    rows = rows.assign(
        moved=rows["patched_d"] - rows["recipient_d"],
        distance=rows["donor_d"] - rows["recipient_d"],
    )
    keys = ["k", "nodes", "type", "word"]
    table = rows.groupby(keys, as_index=False)[["moved", "distance"]].mean()
    near = table["distance"] < least
    reason = f"donor and recipient differ by less than {least:g} logits"
    return table.assign(
        value=(table["moved"] / table["distance"]).mask(near),
        left_out=np.where(near, reason, ""),
    )[[*keys, "value", "distance", "left_out"]]


def ratio_model(distances: pd.Series, types: Sequence[str], params: Params) -> Model:
    """Of distances closed: what is known of their denominators."""
    numbers, least = distances.to_numpy(np.float64), params.verdicts.min_donor_difference
    several = len(types) > len(set(types))
    spread = float(pooled_variance(numbers, types)) ** 0.5 if several else 0.0
    return Model("ratio", below=(float(distances.mean()), spread, least))


def condition_of(run: str) -> str:
    return Run.parse(run).condition
