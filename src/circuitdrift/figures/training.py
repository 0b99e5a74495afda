"""What training did: the loss, and what was learned."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.figures.style import NEUTRAL, Look, line_over_checkpoints
from circuitdrift.identifiers import Run


def loss_figure(loss: pd.DataFrame, marks: pd.DataFrame, original: pd.DataFrame) -> Figure:
    """Loss per step against the share of training, checkpoints marked, the original study beside.

    Args:
        loss: run, progress (0..1), loss; a thin line a run, a colour and dash a condition.
        marks: progress of each checkpoint, and its name.
        original: fraction and loss of the original study's four checkpoints.
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    conditions = sorted({Run.parse(run).condition for run in loss["run"]})
    for index, condition in enumerate(conditions):
        look, label = Look(index, index), f"this study, {condition}"
        for run, rows in loss.groupby("run", sort=True):
            if Run.parse(str(run)).condition == condition:
                axes.plot(
                    100 * rows["progress"],
                    rows["loss"],
                    label=label,
                    linestyle=look.line,
                    linewidth=1.5,
                    color=look.colour_name,
                )
                label = f"_{run}"  # matplotlib leaves such labels out of the legend
    axes.plot(
        100 * original["fraction"],
        original["loss"],
        label="original study",
        color=NEUTRAL,
        marker="s",
        linestyle=":",
    )
    _mark_checkpoints(axes, marks)
    axes.set(
        xlabel="share of training (%)",
        ylabel="training loss (nats per target token)",
        xlim=(0, 101),
        ylim=(0, None),
    )
    axes.legend(loc="lower left")
    return figure


def _mark_checkpoints(axes: Axes, marks: pd.DataFrame) -> None:
    for name, progress in zip(marks["checkpoint"], marks["progress"], strict=True):
        axes.axvline(100 * progress, color="0.85", zorder=0)
        axes.annotate(
            str(name),
            (100 * progress, 1),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize="small",
            color=NEUTRAL,
            rotation=90,
        )


def understanding_figure(understanding: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Probability of the right answer on held-out sentences by constraint, a panel a condition.

    Args:
        understanding: condition, type, word, checkpoint, mean, low, high.
        checkpoints: in order, base first.
    """
    conditions = sorted(understanding["condition"].unique())
    figure, panels = plt.subplots(
        1,
        len(conditions),
        figsize=(4 + 6 * len(conditions), 6),
        sharey=True,
        squeeze=False,
    )
    for condition, axes in zip(conditions, panels[0], strict=True):
        rows = understanding[understanding["condition"] == condition]
        for index, (_, word) in enumerate(rows.groupby(["type", "word"], sort=True)):
            name = f"{word['type'].iloc[0]}/{word['word'].iloc[0]}"
            line_over_checkpoints(axes, word, checkpoints, Look(index, index), name)
        axes.set(ylim=(0, 1.02), xlabel="checkpoint", title=f"trained on: {condition}")
    panels[0][0].set_ylabel("probability of the right answer\n(held-out sentences)")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
