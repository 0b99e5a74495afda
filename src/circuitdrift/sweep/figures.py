"""Figures of a sweep: what length and size do, word by word, and measures from rung to rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.core.study import ASSIGNED
from circuitdrift.report.style import NEUTRAL, look
from circuitdrift.sweep.criteria import GRID, MATCHED, of_arms
from circuitdrift.sweep.page import TAUGHT, Page, plain

EPOCHS, SIZE, LOSS_ON = "train.epochs", "dataset.n_examples", "train.loss_on"
LADDER = "ladder"
ACROSS = {
    "balanced_accuracy": "balanced accuracy",
    "p": "p(answer)",
    "substitution": "substitution",
    "drift": "drift from base",
}
RUNGS = {"accuracy": "accuracy", "p": "p(answer)", "drift": "drift from base"}
CHANCE = {"balanced_accuracy", "accuracy", "substitution"}
APART = 0.22  # between the series at one place of an axis


def draw(page: Page) -> dict[str, Figure]:
    """The figures whose arms have experiments, by the file's name."""
    drawn = {}
    if page.arm(GRID, MATCHED):
        drawn["length_size"] = length_size_figure(page)
    if rungs := page.arm(LADDER):
        drawn["ladder"] = ladder_figure(page, rungs)
    return drawn


def length_size_figure(page: Page) -> Figure:
    """A column a measure; above, epochs with a series a size; below, sizes at equal steps."""
    figure, axes = plt.subplots(2, len(ACROSS), figsize=(5.2 * len(ACROSS), 11), sharey="col")
    grid, matched = (of_arms(page.settings, arm) for arm in (GRID, MATCHED))
    epochs, sizes, steps = sorted({*grid[EPOCHS]}), sorted({*grid[SIZE]}), sorted({*matched[SIZE]})
    for (above, below), (measure, title) in zip(axes.T, ACROSS.items(), strict=True):
        for index, (size, rows) in enumerate(grid.groupby(SIZE)):
            shift = APART * (index - (len(sizes) - 1) / 2)
            places = {name: epochs.index(row[EPOCHS]) + shift for name, row in rows.iterrows()}
            _series(above, page, measure, places, f"{size} examples", **look(index))
        places = {name: steps.index(row[SIZE]) for name, row in matched.iterrows()}
        _series(below, page, measure, places, "at equal steps", **look(len(sizes)))
        above.set_ylim(bottom=0)
        above.set_title(title, fontsize="medium")
        above.set_xticks(range(len(epochs)), map(plain, epochs))
        below.set_xticks(range(len(steps)), map(plain, steps))
        above.set_xlabel("epochs")
        below.set_xlabel("examples, at equal steps")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def ladder_figure(page: Page, rungs: Sequence[str]) -> Figure:
    """Measures from rung to rung, a panel below the other."""
    panels = [(measure, title, rungs) for measure, title in RUNGS.items()]
    # Losses on other tokens are other quantities, and have a panel each.
    losses = page.settings.loc[list(rungs), LOSS_ON]
    for kind, of_kind in losses.groupby(losses, sort=False):
        panels.append(("training_loss", f"loss on {kind}", list(of_kind.index)))
    size = (4 + 1.4 * len(rungs), 3.2 * len(panels) + 2)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, sharex=True)
    for axis, (measure, title, names) in zip(axes, panels, strict=True):
        places = {name: rungs.index(name) for name in names}
        _series(axis, page, measure, places, "trained", **look(0))
        if measure == "drift":
            _series(axis, page, "drift_random", places, "random adapter", **look(1))
            axis.legend(fontsize="small")
        axis.set_ylabel(title)
    axes[-1].set_xticks(range(len(rungs)), [name.replace("-", " ") for name in rungs])
    axes[-1].tick_params(axis="x", rotation=30)
    return figure


def _series(
    axis: Axes, page: Page, measure: str, places: Mapping[Any, float], label: str, **look: Any
) -> None:
    """Means joined by a line, and around them every word's value as a point."""

    def of(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[(table["runs"] == TAUGHT) & (table["measure"] == measure)]
        rows = rows.assign(at=rows["experiment"].map(places))
        return rows.dropna(subset="at").sort_values("at")

    means, words = of(page.values), of(page.words)
    if len(words) > len(means):
        axis.scatter(words["at"], words["value"], s=30, alpha=0.35, color=look["color"], lw=0)
    axis.plot(means["at"], means["mean"], label=label, **look)
    if measure in CHANCE:
        axis.axhline(1 / len(ASSIGNED), color=NEUTRAL, linestyle=":", zorder=0)
