"""The tables of the page, as Markdown; an empty text stands for a table without rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from circuitdrift.config.statistics import Statistics
from circuitdrift.markdown import markdown
from circuitdrift.scaling import names as of
from circuitdrift.scaling.differences import correlation, difference
from circuitdrift.scaling.findings import COMPARED, Finding, described, product_ends
from circuitdrift.scaling.frames import SIZE, on_the_same_recipe, value_at, varied_keys
from circuitdrift.scaling.tables import Experiment
from circuitdrift.scaling.wording import label, plain, shown, signed
from circuitdrift.sweeps.plan import Sweep

CORRELATED = (
    *(of.ACCURACY, of.P_ANSWER, of.LOSS, of.DRIFT, of.DRIFT_BEYOND, of.DRIFT_CONTROL),
    *(of.OVERLAP_BEYOND, of.OVERLAP_CORRECTED, of.MOVED, of.MOVED_BEYOND),
    *(of.CMD, of.FORGETTING, of.FALSE_POSITIVE),
)
OVERVIEW = (
    *(of.LOSS, of.ACCURACY, of.P_ANSWER, of.DRIFT, of.DRIFT_CONTROL, of.DRIFT_RANDOM),
    *(of.OVERLAP_BEYOND, of.OVERLAP_CORRECTED, of.RECRUITED, of.MOVED, of.MOVED_RANDOM),
    *(of.CMD, of.CMD_RANDOM, of.FORGETTING, of.FALSE_POSITIVE),
)


def overview_table(experiments: Sequence[Experiment]) -> str:
    """Every experiment with its measures; those that none has are left out."""
    rows = [
        {
            "experiment": f"`{experiment.name}`",
            "steps": experiment.steps,
            **{label(measure): shown(described(experiment, measure)) for measure in OVERVIEW},
        }
        for experiment in experiments
    ]
    return markdown(_without_empty(pd.DataFrame(rows)))


def differences_table(sweep: Sweep, experiments: Sequence[Experiment], settings: Statistics) -> str:
    """Most minus least of each key of the product arms, at every setting of the other keys."""
    rows = [
        {
            "more": f"`{key}` {_way(ends.least, ends.most, key)}",
            "at": ", ".join(f"`{other}` = {plain(held)}" for other, held in ends.held.items()),
            **{
                label(measure): signed(
                    {
                        "measure": measure,
                        **vars(difference(ends.least, ends.most, measure, settings)),
                    }
                )
                for measure in COMPARED
            },
        }
        for key, pairs in product_ends(sweep, experiments)
        for ends in pairs
    ]
    return markdown(_without_empty(pd.DataFrame(rows)))


def correlations_table(sweep: Sweep, experiments: Sequence[Experiment]) -> str:
    """Spearman's rank correlation of each measure with steps and with every varied number."""
    recipe = on_the_same_recipe(sweep, experiments)
    axes: dict[str, list[Any]] = {"steps": [one.steps for one in recipe]}
    for key in varied_keys(sweep):
        values = [value_at(one.params, key) for one in recipe]
        numeric = all(isinstance(value, int | float) for value in values)
        if numeric and len(set(values)) > 1:
            axes[f"`{key}`"] = values
    rows = []
    for measure in CORRELATED:
        found = {name: correlation(recipe, values, measure) for name, values in axes.items()}
        if any(math.isfinite(rho) for rho, _ in found.values()):
            n = found["steps"][1]
            rows.append(
                {"measure": label(measure), **{name: rho for name, (rho, _) in found.items()}}
                | {"n": n}
            )
    return markdown(pd.DataFrame(rows))


def matched_table(arm: Finding) -> str:
    """Size at equal steps beside steps at equal size: difference between the ends, and spread."""
    rows = []
    for row in arm["rows"]:
        measure = row["measure"]
        named = {
            "sizes at equal steps": row["size"],
            **{
                "steps at "
                + ", ".join(
                    f"{plain(held)} examples" if key == SIZE else f"`{key}` = {plain(held)}"
                    for key, held in one["held"].items()
                ): one
                for one in row["steps"]
            },
        }
        rows.append(
            {
                "measure": label(measure),
                **{name: signed(one) for name, one in named.items()},
            }
        )
    return markdown(pd.DataFrame(rows))


def ladder_table(rungs: Sequence[Finding]) -> str:
    """A row a rung: what it changed, and what came of it."""
    measures = (
        *(of.LOSS, of.ACCURACY, of.P_ANSWER, of.DRIFT, of.DRIFT_RANDOM),
        *(of.MOVED, of.MOVED_RANDOM),
    )
    rows = [
        {
            "rung": f"`{rung['name']}`",
            "changed": changed(rung["changes"]),
            "steps": rung["steps"],
            **{label(measure): shown(rung[measure]) for measure in measures},
        }
        for rung in rungs
    ]
    return markdown(_without_empty(pd.DataFrame(rows)))


def changed(changes: Sequence[tuple[str, Any, Any]]) -> str:
    return ", ".join(f"`{key}` {plain(before)} → {plain(after)}" for key, before, after in changes)


def _way(least: Experiment, most: Experiment, key: str) -> str:
    return " → ".join(plain(value_at(one.params, key)) for one in (least, most))


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns in which nothing was measured."""
    return table[[name for name in table if not (table[name] == "-").all()]]
