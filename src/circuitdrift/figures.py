"""Tables in, figures out. Colours are seaborn's colour-blind set; line style and marker repeat
what colour says, so that a figure also reads in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")
_NEUTRAL = "0.45"


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


def loss_figure(loss: pd.DataFrame, marks: pd.DataFrame, original: pd.DataFrame) -> Figure:
    """Loss per step against the share of training, checkpoints marked, the original study beside.

    Args:
        loss: run, progress (0..1), loss.
        marks: progress of each checkpoint, and its name.
        original: fraction and loss of the original study's four checkpoints.
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    for index, (run, rows) in enumerate(loss.groupby("run", sort=True)):
        axes.plot(
            100 * rows["progress"],
            rows["loss"],
            label=f"this study, {run}",
            linestyle=_LINES[index % len(_LINES)],
            color=sns.color_palette()[index % 10],
        )
    axes.plot(
        100 * original["fraction"],
        original["loss"],
        label="original study",
        color=_NEUTRAL,
        marker="s",
        linestyle=":",
    )
    for name, progress in zip(marks["checkpoint"], marks["progress"], strict=True):
        axes.axvline(100 * progress, color="0.85", zorder=0)
        axes.annotate(
            str(name),
            (100 * progress, 1),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize="small",
            color=_NEUTRAL,
            rotation=90,
        )
    axes.set(
        xlabel="share of training (%)",
        ylabel="training loss (nats per target token)",
        xlim=(0, 101),
        ylim=(0, None),
    )
    axes.legend(loc="lower left")
    return figure


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
            _line_with_interval(axes, word, checkpoints, _Look(index, index), name)
        axes.set(ylim=(0, 1.02), xlabel="checkpoint", title=f"trained on: {condition}")
    panels[0][0].set_ylabel("probability of the right answer\n(held-out sentences)")
    panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def drift_figure(drift: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Drift from the base model per checkpoint: task prompts against control prompts.

    Args:
        drift: condition, prompts (task, control), checkpoint, mean, low, high.
        checkpoints: in order, without base.
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    for condition_index, (condition, of_condition) in enumerate(drift.groupby("condition")):
        for prompts, style in (("task", 0), ("control", 1)):
            rows = of_condition[of_condition["prompts"] == prompts]
            look = _Look(colour=condition_index, style=2 * condition_index + style)
            label = f"{prompts} prompts, trained on {condition}"
            _line_with_interval(axes, rows, checkpoints, look, label)
    axes.set(
        ylim=(0, 1),
        xlabel="checkpoint (% of training)",
        ylabel="drift from base\n(1 - weighted Jaccard of |effect|)",
    )
    axes.legend(loc="upper left")
    return figure


def change_figure(change: pd.DataFrame, segments: Sequence[str]) -> Figure:
    """Layer × part of the prompt: where effect was gained and lost, in % of the base's whole.

    Args:
        change: layer, segment, gained, lost.
        segments: in the order of a prompt.
    """
    figure, panels = plt.subplots(1, 2, figsize=(14, 8), sharey=True)
    top = float(change[["gained", "lost"]].to_numpy().max())
    for axes, measure in zip(panels, ("gained", "lost"), strict=True):
        grid = change.pivot_table(index="layer", columns="segment", values=measure)
        present = [segment for segment in segments if segment in grid.columns]
        sns.heatmap(
            grid[present].sort_index(ascending=False),
            ax=axes,
            vmin=0,
            vmax=top,
            cmap="mako_r",
            linewidths=0.5,
            cbar=measure == "lost",
            cbar_kws={"label": "% of the base model's total |effect|"},
        )
        axes.set(title=f"effect {measure}", xlabel="part of the prompt")
        axes.tick_params(axis="x", rotation=30)
        axes.tick_params(axis="y", rotation=0)
    panels[0].set_ylabel("layer")
    panels[1].set_ylabel("")
    return figure


@dataclass(frozen=True)
class _Look:
    """Which of the colours, and which of the markers and dashes, a line wears."""

    colour: int
    style: int


def _line_with_interval(
    axes: Axes, rows: pd.DataFrame, checkpoints: Sequence[str], look: _Look, label: str
) -> None:
    """One line over the checkpoints, its interval as a whisker."""
    rows = rows.set_index("checkpoint").loc[list(checkpoints)]
    axes.errorbar(
        range(len(rows)),
        rows["mean"],
        yerr=[rows["mean"] - rows["low"], rows["high"] - rows["mean"]],
        label=label,
        color=sns.color_palette()[look.colour % 10],
        marker=_MARKERS[look.style % len(_MARKERS)],
        linestyle=_LINES[look.style % len(_LINES)],
        capsize=4,
    )
    axes.set_xticks(range(len(rows)), list(checkpoints))
