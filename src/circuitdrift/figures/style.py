"""The look of all figures. Colours are seaborn's colour-blind set; line style and marker repeat
what colour says, so that a figure also reads in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
NEUTRAL = "0.45"


@dataclass(frozen=True)
class Look:
    """Which of the colours, and which of the markers and dashes, a line wears."""

    colour: int
    style: int

    @property
    def colour_name(self) -> Any:
        return sns.color_palette("colorblind")[self.colour % 10]

    @property
    def marker(self) -> str:
        return MARKERS[self.style % len(MARKERS)]

    @property
    def line(self) -> str:
        return LINES[self.style % len(LINES)]


def use_style() -> None:
    """Set the look of all figures; sizes are for reading at half size."""
    sns.set_theme(
        context="talk",
        style="ticks",
        palette="colorblind",
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
            "svg.hashsalt": "circuit-drift",
        },
    )


def line_over_checkpoints(
    axes: Axes, rows: pd.DataFrame, checkpoints: Sequence[str], look: Look, label: str
) -> None:
    """One line over the checkpoints, its interval as a whisker."""
    rows = rows.set_index("checkpoint").loc[list(checkpoints)]
    axes.errorbar(
        range(len(rows)),
        rows["mean"],
        yerr=whiskers(rows),
        label=label,
        color=look.colour_name,
        marker=look.marker,
        linestyle=look.line,
        capsize=4,
    )
    axes.set_xticks(range(len(rows)), list(checkpoints))


def whiskers(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Lengths of the whiskers below and above the means ``[2, n_rows]``; 0 for one without end."""
    lengths = np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
    return np.where(np.isfinite(lengths), np.maximum(lengths, 0), 0)


def heat_map(grid: pd.DataFrame, axes: Axes, **options: Any) -> None:
    """A heat map with thin lines between its cells and upright labels; empty cells stay grey."""
    axes.set_facecolor("0.9")
    sns.heatmap(grid.astype(np.float64), ax=axes, linewidths=0.5, **options)
    axes.tick_params(axis="y", rotation=0)
