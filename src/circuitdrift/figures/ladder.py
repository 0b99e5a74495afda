"""Experiments that differ by one change after another: measures from rung to rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.figures.errorbars import errorbars
from circuitdrift.figures.style import Look


@dataclass(frozen=True)
class Line:
    """One measure over the rungs, with the base model's where it has one."""

    measure: str
    label: str
    base: str | None = None


@dataclass(frozen=True)
class RungPanel:
    """A panel over the rungs.

    Attributes:
        scoped: its line is broken where the loss is taken on other tokens, for heights of two
            scopes do not compare.
        top: of the axis; None leaves it to the values.
    """

    title: str
    lines: tuple[Line, ...]
    scoped: bool = False
    top: float | None = None


def ladder_figure(rows: pd.DataFrame, panels: Sequence[RungPanel]) -> Figure:
    """Measures from rung to rung, a panel below the other.

    Args:
        rows: experiment (in the order of the rungs), loss_on, measure, mean, low, high.
    """
    rungs = list(dict.fromkeys(rows["experiment"]))
    size = (8 + 1.1 * len(rungs), 4.5 * len(panels))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False)
    placed = rows.assign(place=rows["experiment"].map(rungs.index)).sort_values("place")
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        for index, line in enumerate(panel.lines):
            of_line = placed[placed["measure"] == line.measure]
            if panel.scoped:
                _by_scope(axis, of_line)
                continue
            look = Look(index, index)
            errorbars(axis, of_line, look, line.label, x="place")
            base = placed[placed["measure"] == line.base]["mean"]
            if len(base):
                color, label = look.colour_name, f"{line.label}, base model"
                axis.axhline(float(base.iloc[0]), color=color, linestyle=":", label=label)
        axis.set(ylabel=panel.title, ylim=(0 if panel.scoped else -0.02, panel.top))
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    axes[-1, 0].set_xticks(range(len(rungs)), rungs, rotation=30, ha="right")
    return figure


def _by_scope(axis: Axes, rows: pd.DataFrame) -> None:
    """One line for each stretch of rungs whose loss is taken on the same tokens."""
    scopes = list(dict.fromkeys(rows["loss_on"]))
    named: set[str] = set()
    for scope, stretch in groupby(rows.to_dict("records"), key=lambda row: str(row["loss_on"])):
        look = Look(scopes.index(scope), scopes.index(scope))
        # matplotlib leaves a label with an underscore in front out of the legend
        label = f"_{scope}" if scope in named else f"on the {scope}"
        errorbars(axis, pd.DataFrame(list(stretch)), look, label, x="place")
        named.add(scope)
