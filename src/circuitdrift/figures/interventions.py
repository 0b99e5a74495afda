"""What interventions in the real models say of the circuits."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.figures.style import NEUTRAL, Look, heat_map, whiskers
from circuitdrift.summaries.interventions import NECESSITY, RANDOM, RECRUITED, SUFFICIENCY

_CIRCUITS = {"own": "its own circuit", "base": "the base's circuit", RANDOM: "random circuits"}


def faithfulness_figure(curves: pd.DataFrame) -> Figure:
    """Faithfulness against circuit size at one checkpoint, a panel a kind of ablation.

    Args:
        curves: rows of the measure faithfulness: ablation, circuit, size, mean, low, high.
    """
    ablations = sorted(curves["ablation"].unique(), reverse=True)
    figure, panels = plt.subplots(
        1, len(ablations), figsize=(2 + 6 * len(ablations), 7), sharey=True, squeeze=False
    )
    for ablation, axes in zip(ablations, panels[0], strict=True):
        of_ablation = curves[curves["ablation"] == ablation]
        for index, (circuit, label) in enumerate(_CIRCUITS.items()):
            rows = of_ablation[of_ablation["circuit"] == circuit].sort_values("size")
            look = Look(index, index)
            axes.plot(
                100 * rows["size"],
                rows["mean"],
                label=label,
                color=look.colour_name,
                marker=look.marker,
                linestyle=look.line,
            )
            axes.fill_between(
                100 * rows["size"], rows["low"], rows["high"], color=look.colour_name, alpha=0.25
            )
        axes.axhline(1, color=NEUTRAL, linewidth=1)
        axes.axhline(0, color=NEUTRAL, linewidth=1)
        axes.set(xscale="log", xlabel="circuit size (% of neurons)", title=f"{ablation} ablation")
    panels[0][0].set_ylabel("faithfulness")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def transfer_figure(transfer: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Faithfulness of each checkpoint's circuit in each checkpoint's model.

    Args:
        transfer: circuit_from, model, mean.
        checkpoints: in order, base first.
    """
    figure, axes = plt.subplots(figsize=(9, 7))
    grid = transfer.pivot_table(index="circuit_from", columns="model", values="mean")
    heat_map(
        grid.reindex(index=list(checkpoints), columns=list(checkpoints)),
        axes,
        vmin=min(0.0, float(transfer["mean"].min())),
        vmax=max(1.0, float(transfer["mean"].max())),
        cmap="mako",
        annot=True,
        fmt=".2f",
        square=True,
        cbar_kws={"label": "faithfulness"},
    )
    axes.set(xlabel="run in the model of", ylabel="circuit found at")
    return figure


def patching_figure(patching: pd.DataFrame) -> Figure:
    """Share of the target's change that patched nodes carry: recruited against random ones.

    Args:
        patching: direction, nodes, mean, low, high.
    """
    figure, axes = plt.subplots(figsize=(9, 6))
    directions = {
        SUFFICIENCY: "fine-tuned activations\ninto the base model",
        NECESSITY: "base activations\ninto the fine-tuned model",
    }
    present = [name for name in directions if name in set(patching["direction"])]
    for index, nodes in enumerate((RECRUITED, RANDOM)):
        rows = patching[patching["nodes"] == nodes].set_index("direction").reindex(present)
        axes.bar(
            [place + 0.4 * index for place in range(len(present))],
            rows["mean"],
            width=0.36,
            yerr=whiskers(rows),
            capsize=6,
            label=f"{nodes} nodes",
            color=Look(index, index).colour_name,
            edgecolor="black",
            hatch="//" if nodes == RANDOM else "",
        )
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xticks(
        [place + 0.2 for place in range(len(present))], [directions[name] for name in present]
    )
    axes.set_ylabel("share of the target's change")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def ablation_rank_figure(ranks: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Rank correlation of effect and ablation by checkpoint.

    Args:
        ranks: checkpoint, mean, low, high.
        checkpoints: those measured, in order.
    """
    figure, axes = plt.subplots(figsize=(8, 5))
    rows = ranks.set_index("checkpoint").loc[list(checkpoints)]
    places = range(len(rows))
    axes.errorbar(
        places, rows["mean"], yerr=whiskers(rows), fmt="o", capsize=6, color=Look(0, 0).colour_name
    )
    axes.axhline(0, color=NEUTRAL, linewidth=1)
    axes.set_xticks(places, list(checkpoints))
    axes.set(
        ylim=(-1, 1),
        xlim=(-0.5, len(rows) - 0.5),
        xlabel="checkpoint",
        ylabel="Spearman: effect against\nwhat ablation does",
    )
    return figure
