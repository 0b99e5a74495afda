"""Means with their intervals, those without an end among them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from circuitdrift.figures.style import Look, whiskers

_ARROW_POINTS = 36  # past the marker and the heads of finite whiskers


def errorbars(axis: Axes, rows: pd.DataFrame, look: Look, label: str, x: str = "at") -> None:
    """A line with whiskers; an end that is infinite is an arrow, of one length for all."""
    if rows.empty:
        return
    axis.errorbar(
        rows[x],
        rows["mean"],
        yerr=whiskers(rows),
        label=label,
        color=look.colour_name,
        marker=look.marker,
        linestyle=look.line,
        capsize=4,
    )
    for end, points_up in (("high", _ARROW_POINTS), ("low", -_ARROW_POINTS)):
        for _, row in rows[np.isinf(rows[end])].iterrows():
            axis.annotate(
                "",
                (row[x], row["mean"]),
                xytext=(0, points_up),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<-", "color": look.colour_name, "shrinkB": 0},
            )
