"""Experiments of a sweep: maps over what was varied, curves over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer as Whiskered
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from circuitdrift.figures.errorbars import errorbars
from circuitdrift.figures.style import NEUTRAL, Look, heat_map

_COLUMNS = 3
# Around points whose steps are equal by plan: what differs among them is the data.
_RING: dict[str, Any] = {
    "marker": "o",
    "s": 420,
    "facecolors": "none",
    "edgecolors": "black",
    "linewidths": 2,
}


@dataclass(frozen=True)
class Panel:
    """One measure, and what chance would give of it.

    Attributes:
        null: the measure of the null, drawn beside it.
        top: of a map's colours; None for the largest value that is there.
    """

    measure: str
    title: str
    null: str | None = None
    null_label: str = ""
    decimals: int = 2
    top: float | None = None


def heat_maps_figure(
    rows: pd.DataFrame, vertical: str, across: str, panels: Sequence[Panel]
) -> Figure:
    """A heat map a measure over two params; an experiment that is not there stays grey.

    Args:
        rows: the columns ``vertical`` and ``across``, measure, mean.
    """
    figure, axes = _grid(len(panels), width=5.2, height=4.6)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        of_panel = rows[rows["measure"] == panel.measure]
        grid = of_panel.pivot_table(index=vertical, columns=across, values="mean")
        grid = grid.sort_index(ascending=False).rename(index=_short, columns=_short)
        largest = float(of_panel["mean"].max())
        heat_map(
            grid,
            axis,
            # From 0 on, so that small differences look small.
            vmin=min(0.0, float(of_panel["mean"].min())),
            vmax=panel.top or (largest if largest > 0 else 1.0),
            cmap="mako",
            annot=True,
            fmt=f".{panel.decimals}f",
            annot_kws={"fontsize": "medium"},
            cbar=False,
        )
        axis.set_title(panel.title, fontsize="medium")
        axis.set(
            xlabel=across if place + _COLUMNS >= len(panels) else "",
            ylabel=vertical if place % _COLUMNS == 0 else "",
        )
    return figure


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def steps_figure(rows: pd.DataFrame, panels: Sequence[Panel]) -> Figure:
    """Each measure against optimiser steps, a line for each setting of what else was varied.

    Args:
        rows: experiment, steps, line (what its line is called), matched (of an arm of equal
            steps), measure, mean, low, high; lines in the order of the legend.
    """
    figure, axes = _grid(len(panels), width=5.4, height=4.8)
    lines = list(dict.fromkeys(rows["line"]))
    placed = _apart(rows, lines)
    for axis, panel in zip(axes, panels, strict=True):
        of_panel = placed[placed["measure"] == panel.measure].sort_values("at")
        for index, line in enumerate(lines):
            name = line if len(lines) > 1 else "experiments"
            errorbars(axis, of_panel[of_panel["line"] == line], Look(index, index), name)
        ringed = of_panel[of_panel["matched"]]
        if len(ringed):
            axis.scatter(ringed["at"], ringed["mean"], label="equal steps", zorder=4, **_RING)
        _chance(axis, placed[placed["measure"] == panel.null].sort_values("at"), panel)
        _log_steps(axis)
        axis.margins(y=0.12)
        axis.set_title(panel.title, fontsize="medium")
    for axis in axes[-min(_COLUMNS, len(axes)) :]:
        axis.set_xlabel("optimiser steps")
    _legend_below(figure, axes, columns=2)
    return figure


def _apart(rows: pd.DataFrame, lines: Sequence[object]) -> pd.DataFrame:
    """With the place ``at`` which a point is drawn: experiments of equal steps and unequal lines
    would hide each other, so lines stand 4 % of the steps apart."""
    shift = {line: 1.04 ** (index - (len(lines) - 1) / 2) for index, line in enumerate(lines)}
    return rows.assign(at=rows["steps"] * rows["line"].map(shift))


def _chance(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    if len(rows):
        label = "chance: base model, random adapters, random circuits"
        axis.plot(rows["at"], rows["mean"], "x", color=NEUTRAL, label=label)
        axis.annotate(
            panel.null_label,
            (rows["at"].iloc[-1], rows["mean"].iloc[-1]),
            xytext=(0, 10),
            textcoords="offset points",
            ha="right",
            fontsize="x-small",
            color=NEUTRAL,
        )


def _log_steps(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def _grid(n: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """``n`` panels in rows of three; places left over are not drawn."""
    columns = min(n, _COLUMNS)
    n_rows = -(-n // columns)
    size = (width * columns, height * n_rows)
    figure, axes = plt.subplots(n_rows, columns, figsize=size, squeeze=False)
    flat = list(axes.ravel())
    for axis in flat[n:]:
        axis.remove()
    return figure, flat[:n]


def _legend_below(figure: Figure, axes: Sequence[Axes], columns: int) -> None:
    """One legend of all panels, every label once."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        found = zip(*axis.get_legend_handles_labels(), strict=True)
        # Lines first: matplotlib puts those with whiskers behind everything else.
        for handle, label in sorted(found, key=lambda pair: not isinstance(pair[0], Whiskered)):
            handles.setdefault(label, handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
