"""What the template of a sweep's page and its figures ask for; all prose stands there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from circuitdrift.core.study import ASSIGNED
from circuitdrift.report.style import MISSING, interval, markdown, number
from circuitdrift.report.verdicts import rq2, rq3
from circuitdrift.statistics.coverage import DIFFERENCE, PROBABILITY, Model, checked_interval
from circuitdrift.sweep.criteria import of_arms, rq3_parts

if TYPE_CHECKING:
    from circuitdrift.params import Params

TAUGHT = "assigned"  # the runs that teach every word one meaning, taken together
MEASURE = ["experiment", "runs", "measure"]
LABELS = {
    "p": "p(answer)",
    "frame_unseen": "frame of unseen words",
    "far_accuracy": "accuracy, far",
    "reverse_accuracy": "accuracy, meaning to word",
    "drift_control": "drift, control",
    "drift_random": "drift, random adapter",
    "control_loss_change": "control loss, change",
    "first_loss": "training loss, first quarter",
    "training_loss": "training loss, last quarter",
    "balanced_accuracy": "balanced accuracy",
}
COUNTED = {"balanced_accuracy", "accuracy", "far_accuracy", "reverse_accuracy"}
COUNTED |= {"discrimination", "substitution"}
UNBOUNDED = {"gain"}  # what else is of words lies between 0 and 1


class Page:
    """Means and intervals of all experiments, and what they say.

    Attributes:
        settings: arms, revision, code and params of each experiment: a row an experiment.
        words: experiment, runs (:data:`TAUGHT`, or a condition that teaches otherwise), measure,
            type, word, value, n: mean over runs, of n prompts in all.
        values: experiment, runs, measure, mean, low and high over words (empty where coverage
            says so), half over seeds.
        criteria: of :func:`rq3_parts`.
        replications: what experiments' own reports say of RQ2.
    """

    def __init__(
        self,
        experiments: pd.DataFrame,
        measures: pd.DataFrame,
        replications: pd.DataFrame,
        between: pd.DataFrame | None,
        params: Params,
    ) -> None:
        self.settings = experiments.set_index("experiment").map(_value)
        self.replications = replications
        by_seed = _by_seed(measures)
        by = by_seed.groupby([*MEASURE, "type", "word"], sort=False)
        self.words = by.agg({"value": "mean", "n": "sum"}).reset_index()
        self.values = _values(self.words, by_seed, params)
        values, words = (each[each["runs"] == TAUGHT] for each in (self.values, self.words))
        self.criteria = rq3_parts(values, words, self.settings, between, params)

    def arm(self, *arms: str) -> list[str]:
        """The experiments of these arms that are in the tables."""
        return list(of_arms(self.settings, *arms).index)

    @property
    def parts(self) -> str:
        """The parts of the criteria, a row each."""
        return markdown(self.criteria.fillna({"reason": ""}))

    @property
    def outcomes(self) -> dict[int, str]:
        """Of each criterion, by its number."""
        return rq3(self.criteria)

    def table(self, names: Sequence[str], measures: Sequence[str]) -> str:
        """A row an experiment and kind of runs; measures that none has are left out.

        Empty text for no experiment.
        """
        rows = self.values[self.values["experiment"].isin(names)]
        if rows.empty:
            return ""
        texts = rows.assign(text=rows.apply(_text, axis="columns"))
        table = texts.pivot(index=["experiment", "runs"], columns="measure", values="text")
        table = table.loc[list(names)].reindex(columns=measures).dropna(axis="columns", how="all")
        table = table.fillna(MISSING).rename(columns=LABELS).reset_index()
        return markdown(table.drop(columns="runs") if (table["runs"] == TAUGHT).all() else table)

    def replication(self, experiment: str) -> tuple[str, str]:
        """What an experiment's own report says of RQ2: the verdict, and a row a criterion."""
        rows = self.replications[self.replications["experiment"] == experiment]
        columns = ["number", "name", "estimate", "low", "high", "threshold", "outcome", "reason"]
        table = markdown(rows.reindex(columns=columns).astype({"number": "Int64"}))
        return rq2(rows) if len(rows) else "", table


def plain(value: Any) -> str:
    """A value of params.yaml: 3.0 as 3, 0.0005 as 0.0005."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(text: str) -> Any:
    """A cell of experiments.csv: what JSON reads, a list as a tuple; other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value


def _by_seed(measures: pd.DataFrame) -> pd.DataFrame:
    """Means over assignments: experiment, runs, measure, seed, type, word, value, n.

    Accuracy is balanced where every assignment is there, and has another name.
    """
    taught = measures["condition"].isin(list(ASSIGNED))
    runs = measures["condition"].mask(taught, TAUGHT)
    conditions = measures["condition"].where(taught).groupby(measures["experiment"])
    balanced = taught & (conditions.transform("nunique") == len(ASSIGNED))
    balanced &= measures["measure"] == "accuracy"
    measure = measures["measure"].mask(balanced, "balanced_accuracy")
    own = measures.assign(runs=runs, measure=measure)
    by = own.groupby([*MEASURE, "seed", "type", "word"], sort=False, dropna=False)
    return by.agg({"value": "mean", "n": "sum"}).reset_index()


def _values(words: pd.DataFrame, by_seed: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Each measure's mean with its intervals over words and over seeds, where there are such."""
    rows = []
    for (*names, measure), of in words.groupby(MEASURE, sort=False):
        model = DIFFERENCE if measure in UNBOUNDED else PROBABILITY
        if measure in COUNTED:
            model = Model("share", trials=int(of["n"].min()))
        checked = checked_interval(of["value"], list(of["type"]), model, params)
        rows.append((*names, measure, checked.mean, checked.low, checked.high))
    table = pd.DataFrame(rows, columns=[*MEASURE, "mean", "low", "high"])
    seeds = by_seed.groupby([*MEASURE, "seed"])["value"].mean().groupby(MEASURE)
    t = stats.t.ppf((1 + params.statistics.confidence) / 2, np.maximum(seeds.size() - 1, 1))
    return table.join((t * seeds.sem()).rename("half"), on=MEASURE)  # NaN for one seed


def _text(row: pd.Series) -> str:
    """``mean [low, high] ± half``, without what is not there; steps are whole."""
    if row["measure"] == "steps":
        return f"{row['mean']:.0f}"
    text = interval(row)
    return text if math.isnan(row["half"]) else f"{text} ± {number(row['half'])}"
