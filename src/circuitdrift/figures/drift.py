"""How far the circuits moved, and how much of the movement chance would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.style import Look, heat_map, line_over_checkpoints
from circuitdrift.summaries.grids import CONTROL, RANDOM_ADAPTER, TASK, checkpoint_order


def drift_figure(drift: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Drift from the base model per checkpoint: task and control prompts of each condition, and
    task prompts under random adapters.

    Args:
        drift: condition, prompts (task, control), checkpoint, mean, low, high.
        checkpoints: in order, without base.
    """
    figure, axes = plt.subplots(figsize=(10, 7))
    conditions = sorted(set(drift["condition"]) - {RANDOM_ADAPTER})
    lines = [
        (f"{prompts} prompts, {condition}", condition, prompts, Look(colour, 2 * colour + style))
        for colour, condition in enumerate(conditions)
        for style, prompts in enumerate((TASK, CONTROL))
    ]
    random = Look(len(conditions), 2 * len(conditions))
    lines.append((f"{TASK} prompts, {RANDOM_ADAPTER}", RANDOM_ADAPTER, TASK, random))
    for label, condition, prompts, look in lines:
        rows = drift[(drift["condition"] == condition) & (drift["prompts"] == prompts)]
        if len(rows):
            line_over_checkpoints(axes, rows, checkpoints, look, label)
    axes.set(
        ylim=(0, 1),
        xlabel="checkpoint (% of training)",
        ylabel="drift from base\n(1 - weighted Jaccard of |effect|)",
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def overlap_figure(overlap: pd.DataFrame) -> Figure:
    """Node overlap between all pairs of checkpoints, a heat map a condition, at one threshold.

    Args:
        overlap: of discovery prompts at one threshold: condition, from, to, jaccard, corrected.
            Corrected for chance where all pairs are; else as it is, and the figure says so.
    """
    measure = "jaccard" if overlap["corrected"].isna().any() else "corrected"
    name = "Jaccard index (not corrected)" if measure == "jaccard" else "chance-corrected overlap"
    conditions = sorted(overlap["condition"].unique())
    checkpoints = checkpoint_order([*overlap["from"], *overlap["to"]])
    figure, panels = plt.subplots(
        1, len(conditions), figsize=(1 + 7 * len(conditions), 6), sharey=True, squeeze=False
    )
    lowest = min(0.0, float(overlap[measure].min()))
    for condition, axes in zip(conditions, panels[0], strict=True):
        rows = overlap[overlap["condition"] == condition]
        heat_map(
            _symmetric(rows, measure, checkpoints),
            axes,
            vmin=lowest,
            vmax=1,
            cmap="mako",
            annot=True,
            fmt=".2f",
            square=True,
            cbar=condition == conditions[-1],
            cbar_kws={"label": name},
        )
        axes.set(title=condition, xlabel="checkpoint", ylabel="")
    panels[0][0].set_ylabel("checkpoint")
    return figure


def _symmetric(rows: pd.DataFrame, measure: str, checkpoints: Sequence[str]) -> pd.DataFrame:
    grid = pd.DataFrame(np.nan, index=list(checkpoints), columns=list(checkpoints))
    for before, after, value in zip(rows["from"], rows["to"], rows[measure], strict=True):
        grid.loc[before, after] = grid.loc[after, before] = value
    return grid


def overlap_thresholds_figure(overlap: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Overlap with the base model's nodes at every threshold, a panel a condition.

    Args:
        overlap: of discovery prompts from base: condition, to, threshold, jaccard, null, corrected.
        checkpoints: in order, without base.
    """
    measure = "jaccard" if overlap["corrected"].isna().any() else "corrected"
    name = "Jaccard index\n(not corrected)" if measure == "jaccard" else "chance-corrected\noverlap"
    conditions = sorted(overlap["condition"].unique())
    figure, panels = plt.subplots(
        1, len(conditions), figsize=(3 + 6 * len(conditions), 6), sharey=True, squeeze=False
    )
    for condition, axes in zip(conditions, panels[0], strict=True):
        of_condition = overlap[overlap["condition"] == condition]
        for index, checkpoint in enumerate(checkpoints):
            rows = of_condition[of_condition["to"] == checkpoint].sort_values("threshold")
            look = Look(index, index)
            axes.plot(
                rows["threshold"],
                rows[measure],
                label=checkpoint,
                color=look.colour_name,
                marker=look.marker,
                linestyle=look.line,
            )
        axes.set(title=condition, xlabel="share of |effect| that the nodes hold")
    lowest = min(0.0, 1.1 * float(overlap[measure].min()))
    panels[0][0].set(ylabel=f"{name} with base", ylim=(lowest, 1))
    panels[0][-1].legend(title="checkpoint", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
