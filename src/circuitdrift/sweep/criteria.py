"""RQ3's two criteria as they were registered (docs/preregistration.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from circuitdrift.core.study import ASSIGNED
from circuitdrift.report.criteria import FAILS, HOLDS, NOT_MEASURED, UNDECIDED
from circuitdrift.statistics.coverage import Model, checked_interval
from circuitdrift.statistics.words import mean_over_words

if TYPE_CHECKING:
    from circuitdrift.params import Params

EPOCHS, SIZES, AT_SIZE = (1, 3, 10), (25, 50, 200), 50
GRID, MATCHED, REGIME = "grid", "matched-steps", "original-regime"
# A value, and its interval where it has one, lies between least and most.
COLUMNS = ["number", "part", "value", "low", "high", "least", "most", "outcome", "reason"]


def rq3_parts(
    values: pd.DataFrame,
    words: pd.DataFrame,
    settings: pd.DataFrame,
    between: pd.DataFrame | None,
    params: Params,
) -> pd.DataFrame:
    """The parts of both criteria, a row each; a criterion is as its worst part.

    Args:
        values: experiment, measure, mean of the assigned runs.
        words: experiment, measure, type, value, n of the assigned runs: a word's mean over n.
        settings: arms and params of each experiment: a row an experiment, a column a dotted key.
        between: compare's between_runs.csv of the default study.
    """
    means = values.set_index(["measure", "experiment"])["mean"].sort_index()
    fits = [
        set(ASSIGNED) <= set(row["runs.conditions"]) and len(row["runs.seeds"]) >= 2
        for _, row in settings.iterrows()
    ]
    registered = settings.loc[fits]
    own = words[(words["experiment"] == REGIME) & (words["measure"] == "balanced_accuracy")]
    lacking = [] if REGIME in registered.index else [REGIME]
    last = params.train.checkpoint_names[-1]
    rows = [
        *_ranges(means, registered[registered["train.schedule"] == "constant"], params),
        _accuracy(own, params, lacking),
        _drift(means, between, last, lacking),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def of_arms(settings: pd.DataFrame, *arms: str) -> pd.DataFrame:
    """The experiments of these arms."""
    return settings.loc[[bool({*of.split(";")} & {*arms}) for of in settings["arms"]]]


def _ranges(means: pd.Series, cells: pd.DataFrame, params: Params) -> Iterator[dict[str, Any]]:
    """Range of cell means over examples at equal steps, as a share of that over epochs."""
    matched, grid = of_arms(cells, MATCHED), of_arms(cells, GRID)
    grid = grid[grid["dataset.n_examples"] == AT_SIZE]
    by_size = {row["dataset.n_examples"]: name for name, row in matched.iterrows()}
    by_epochs = {row["train.epochs"]: name for name, row in grid.iterrows()}
    lacking = [f"{MATCHED} of {size} examples" for size in SIZES if size not in by_size]
    lacking += [f"{GRID} of {n} epochs" for n in EPOCHS if n not in by_epochs]
    if not lacking and means["steps"][[by_size[size] for size in SIZES]].nunique() > 1:
        lacking = [f"equal steps in {MATCHED}"]
    for measure in ("drift", "balanced_accuracy"):
        share = math.nan
        if not lacking:
            over_examples, over_epochs = (
                float(of.max() - of.min())
                for of in (
                    means[measure][[by_size[size] for size in SIZES]],
                    means[measure][[by_epochs[n] for n in EPOCHS]],
                )
            )
            share = over_examples / over_epochs if over_epochs else math.inf
        name = f"range of {measure.replace('_', ' ')} over examples ÷ over epochs"
        yield _below(1, name, share, params.verdicts.max_range_share, lacking)


def _accuracy(own: pd.DataFrame, params: Params, lacking: Sequence[str]) -> dict[str, Any]:
    """Balanced accuracy in the original's regime, whose interval lies around chance."""
    chance, slack = 1 / len(ASSIGNED), params.verdicts.max_accuracy_from_chance
    least, most = chance - slack, chance + slack
    row: dict[str, Any] = {"number": 2, "part": "balanced accuracy in the original regime"}
    row |= {"least": least, "most": most}
    if lacking:
        return {**row, **_lacks(lacking)}
    given = own["value"], list(own["type"])
    interval = mean_over_words(*given, params.statistics.confidence)
    model = Model("share", trials=int(own["n"].min()))
    checked = checked_interval(*given, model, params, {"least": least, "most": most})
    outcome = HOLDS if least <= interval.low and interval.high <= most else UNDECIDED
    if checked.low > most or checked.high < least:  # neither where it is withheld
        outcome = FAILS
    reason = "interval withheld: its coverage" if checked.withheld else ""
    ends = {"low": checked.low, "high": checked.high}
    return {**row, "value": interval.mean, **ends, "outcome": outcome, "reason": reason}


def _drift(
    means: pd.Series, between: pd.DataFrame | None, last: str, lacking: Sequence[str]
) -> dict[str, Any]:
    """Drift in the original's regime, below that between two runs of one assignment."""
    most = math.nan
    if between is not None and "unit" in between:  # the first round's table has no words
        ends = between[["checkpoint_a", "checkpoint_b"]].eq(last).all(axis="columns")
        one, other = (between[run].str.rpartition("-")[0] for run in ("run_a", "run_b"))
        alike = (one == other) & one.isin(list(ASSIGNED)) & (between["role"] == "near")
        most = between[ends & alike].groupby(["type", "unit"])["drift"].mean().mean()
    if math.isnan(most):
        lacking = [*lacking, "the default study's drift between runs"]
    value = math.nan if REGIME in lacking else float(means["drift"][REGIME])
    return _below(2, "drift in the original regime", value, most, lacking)


def _below(
    number: int, part: str, value: float, most: float, lacking: Sequence[str]
) -> dict[str, Any]:
    """A part without a registered interval or test: it cannot fail, only hold or be undecided."""
    holds = value < most
    reason = "" if holds else "no interval is registered, so it cannot fail"
    outcome = {"outcome": HOLDS if holds else UNDECIDED, "reason": reason}
    row = {"number": number, "part": part, "value": value, "most": most}
    return {**row, **(_lacks(lacking) if lacking else outcome)}


def _lacks(what: Sequence[str]) -> dict[str, Any]:
    return {"value": math.nan, "outcome": NOT_MEASURED, "reason": "lacks " + ", ".join(what)}
