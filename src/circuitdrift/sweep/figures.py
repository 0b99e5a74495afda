"""Figures of a sweep: maps over two params, curves over steps, measures from rung to rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.report.style import NEUTRAL, errorbars, heat_map, look
from circuitdrift.report.summaries import where

EPOCHS = "train.epochs"

# measure: (title, its null, what the null is)
CURVES = {
    "accuracy": ("accuracy (held out)", "base_accuracy", "base model"),
    "p_answer": ("p(answer) (held out)", "base_p_answer", "base model"),
    "drift_task": ("drift of task prompts", "drift_random", "random adapters"),
    "overlap_beyond_chance": ("node overlap with base\nbeyond chance", "", ""),
    "moved_features": ("moved features", "moved_features_random", "random adapters"),
    "faithfulness_cmd": ("CMD of its own circuits", "faithfulness_cmd_random", "random circuits"),
}
# panel: {measure: label}
RUNGS = {
    "held-out prompts": {
        "accuracy": "accuracy",
        "p_answer": "p(answer)",
        "base_accuracy": "accuracy, base model",
        "base_p_answer": "p(answer), base model",
    },
    "drift from base": {
        "drift_task": "task prompts",
        "drift_control": "control prompts",
        "drift_random": "task prompts, random adapters",
    },
}


def draw(
    values: pd.DataFrame, settings: pd.DataFrame, arms: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, Figure]:
    """Maps of each product of two params, curves over steps, each ladder; by the file's name.

    The arguments are attributes of :class:`circuitdrift.sweep.summary.Page`.
    """
    drawn: dict[str, Figure] = {}
    for arm, names in arms["product"].items():
        keys = varied(settings.loc[list(names)])
        if len(keys) == 2:
            drawn[arm] = grid_figure(values[values["experiment"].isin(names)], settings, keys)
    if recipe := on_one_recipe(arms):
        keys = [key for key in varied(settings.loc[recipe]) if key != EPOCHS]
        rows = settings.loc[recipe, keys].sort_values(keys) if keys else settings.loc[recipe, []]
        lines = {
            str(name): ", ".join(f"{key} = {plain(row[key])}" for key in keys)
            for name, row in rows.iterrows()
        }
        drawn["by_steps"] = steps_figure(values, lines)
    for arm, names in arms["rungs"].items():
        if names:
            drawn[arm] = ladder_figure(values, names)
    return drawn


def plain(value: Any) -> str:
    """A value of params.yaml: 3.0 as 3, 0.0005 as 0.0005."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def varied(settings: pd.DataFrame) -> list[str]:
    """The params in which experiments differ."""
    return [str(key) for key in settings if settings[key].astype(str).nunique() > 1]


def on_one_recipe(arms: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Experiments that steps may compare, each once; a ladder's rungs differ in too much."""
    lists = [*arms["product"].values(), *arms["together"].values()]
    return list(dict.fromkeys(name for names in lists for name in names))


def grid_figure(values: pd.DataFrame, settings: pd.DataFrame, keys: Sequence[str]) -> Figure:
    """A heat map a measure over two params; an experiment that is not there stays grey."""
    down, across = keys
    rows = values.join(settings[[down, across]], on="experiment")
    figure, axes = _panels()
    for axis, (measure, (title, _, _)) in zip(axes, CURVES.items(), strict=True):
        of_measure = where(rows, measure=measure)
        grid = of_measure.pivot_table(index=down, columns=across, values="mean")
        if of_measure.empty:
            axis.set_axis_off()
            continue
        top = of_measure["mean"].max()
        # Colours start at 0, so that small differences look small.
        heat_map(
            grid.sort_index(ascending=False).rename(index=plain, columns=plain),
            axis,
            vmin=0.0,
            vmax=top if top > 0 else 1.0,
            cmap="mako",
            annot=True,
            fmt=".0f" if top > 2 else ".2f",
            annot_kws={"fontsize": "medium"},
            cbar=False,
        )
        axis.set_title(title, fontsize="medium")
    return figure


def steps_figure(values: pd.DataFrame, lines: Mapping[str, str]) -> Figure:
    """Each measure against optimiser steps, and what chance gives of it.

    ``lines`` says which line each experiment stands on.
    """
    steps = where(values, measure="steps").set_index("experiment")["mean"]
    rows = values.assign(at=values["experiment"].map(steps), line=values["experiment"].map(lines))
    rows = rows.dropna(subset="line").sort_values("at")
    figure, axes = _panels()
    for axis, (measure, (title, null, chance)) in zip(axes, CURVES.items(), strict=True):
        for index, line in enumerate(dict.fromkeys(lines.values())):
            errorbars(axis, where(rows, measure=measure, line=line), look(index), line)
        of_null = where(rows, measure=null)
        axis.plot(of_null["at"], of_null["mean"], "x", color=NEUTRAL, label="chance")
        axis.set_title(f"{title}\n(chance: {chance})" if chance else title, fontsize="medium")
        axis.set(xscale="log", xlabel="optimiser steps")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def ladder_figure(values: pd.DataFrame, rungs: Sequence[str]) -> Figure:
    """Measures from rung to rung, a panel below the other."""
    size = (8 + 1.1 * len(rungs), 4.5 * len(RUNGS))
    figure, axes = plt.subplots(len(RUNGS), 1, figsize=size, sharex=True)
    place = {name: index for index, name in enumerate(rungs)}
    rows = values[values["experiment"].isin(place)]
    rows = rows.assign(at=rows["experiment"].map(place)).sort_values("at")
    for axis, (title, measures) in zip(axes, RUNGS.items(), strict=True):
        for index, (measure, label) in enumerate(measures.items()):
            errorbars(axis, where(rows, measure=measure), look(index), label)
        axis.set(ylabel=title)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    axes[-1].set_xticks(range(len(rungs)), rungs, rotation=30, ha="right")
    return figure


def _panels() -> tuple[Figure, list[Axes]]:
    """A panel for each of :data:`CURVES`, in rows of three."""
    figure, axes = plt.subplots(len(CURVES) // 3, 3, figsize=(16.2, 1.6 * len(CURVES)))
    return figure, list(axes.ravel())
