"""Where in the model: maps of layer by part of the prompt, and recruited nodes by layer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.style import Look, heat_map

_OF_THE_BASE = "% of the base model's total |effect|"


def change_figure(change: pd.DataFrame, segments: Sequence[str]) -> Figure:
    """Layer × part of the prompt: where effect was gained and lost, in % of the base's whole.

    Args:
        change: layer, segment, gained, lost.
        segments: in the order of a prompt.
    """
    figure, panels = plt.subplots(1, 2, figsize=(14, 8), sharey=True)
    top = float(change[["gained", "lost"]].to_numpy().max())
    for axes, measure in zip(panels, ("gained", "lost"), strict=True):
        heat_map(
            _by_place(change, measure, segments),
            axes,
            vmin=0,
            vmax=top,
            cmap="mako_r",
            cbar=measure == "lost",
            cbar_kws={"label": _OF_THE_BASE},
        )
        axes.set(title=f"effect {measure}", xlabel="part of the prompt", ylabel="")
        axes.tick_params(axis="x", rotation=30)
    panels[0].set_ylabel("layer")
    return figure


def mapping_place_figure(difference: pd.DataFrame, segments: Sequence[str]) -> Figure:
    """Layer × part of the prompt: how much more effect moved in `mapped` than in `shuffled`.

    Args:
        difference: layer, segment, mean, low, high; places whose interval is off zero are dotted.
        segments: in the order of a prompt.
    """
    figure, axes = plt.subplots(figsize=(9, 8))
    grid = _by_place(difference, "mean", segments)
    top = float(difference["mean"].abs().max())
    heat_map(
        grid,
        axes,
        vmin=-top,
        vmax=top,
        cmap="vlag",
        cbar_kws={"label": f"{_OF_THE_BASE},\nmapped minus shuffled"},
    )
    clear = difference[(difference["low"] > 0) | (difference["high"] < 0)]
    axes.scatter(
        [list(grid.columns).index(segment) + 0.5 for segment in clear["segment"]],
        [list(grid.index).index(layer) + 0.5 for layer in clear["layer"]],
        marker=".",
        color="black",
        s=40,
    )
    axes.set(title="effect moved", xlabel="part of the prompt", ylabel="layer")
    axes.tick_params(axis="x", rotation=30)
    return figure


def recruited_figure(recruited: pd.DataFrame) -> Figure:
    """Sum of the recruited and retired nodes' change of effect, by layer.

    Args:
        recruited: layer, direction (recruited, retired), difference (logits).
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    layers = range(int(recruited["layer"].min()), int(recruited["layer"].max()) + 1)
    for index, direction in enumerate(("recruited", "retired")):
        rows = recruited[recruited["direction"] == direction]
        total = rows.groupby("layer")["difference"].apply(lambda change: change.abs().sum())
        height = total.reindex(layers, fill_value=0.0)
        axes.bar(
            list(layers),
            height if direction == "recruited" else -height,
            label=f"{direction} ({len(rows)})",
            color=Look(index, index).colour_name,
            edgecolor="black",
            hatch="" if direction == "recruited" else "//",
        )
    axes.axhline(0, color="black", linewidth=1)
    axes.set(
        xlabel="layer",
        ylabel="sum of |difference of effect|\n(logits; retired downwards)",
        xticks=list(layers),
    )
    axes.tick_params(axis="x", labelsize="small")
    axes.legend()
    return figure


def _by_place(table: pd.DataFrame, value: str, segments: Sequence[str]) -> pd.DataFrame:
    """``value`` with the top layer above and the parts in the order of a prompt."""
    grid = table.pivot_table(index="layer", columns="segment", values=value)
    present = [segment for segment in segments if segment in grid.columns]
    return grid[present].sort_index(ascending=False)
