"""Every figure of the report, each drawn from one table, by the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.core.study import BASE, SEGMENTS, Run
from circuitdrift.report.faithfulness import FAITHFULNESS, NECESSITY, RANDOM, RECRUITED, SUFFICIENCY
from circuitdrift.report.style import NEUTRAL, errorbars, heat_map, look, whiskers
from circuitdrift.report.summaries import (
    CONTROL,
    RANDOM_ADAPTER,
    TASK,
    Study,
    checkpoint_order,
    focus_condition,
    where,
)

OUTCOME_NAMES = {
    "gain_log_odds": "gain in log-odds of the right answer",
    "gain_p": "gain in probability of the right answer",
}
_OF_THE_BASE = "% of the base model's total |effect|"
_CIRCUITS = {"own": "its own circuit", "base": "the base's circuit", RANDOM: "random circuits"}
_PATCHED = {
    SUFFICIENCY: "fine-tuned activations\ninto the base model",
    NECESSITY: "base activations\ninto the fine-tuned model",
}


def draw(study: Study) -> dict[str, Figure]:
    """The figures of the page; one whose table has no rows is left out."""
    tables, checkpoints = study.tables, study.checkpoints
    marks = dict(zip(checkpoints, study.params.train.checkpoints, strict=True))
    original = pd.DataFrame(study.original["losses"])
    with_base = [BASE, *checkpoints]
    curves = _focus(tables["faithfulness_summary"])
    drawings: dict[str, tuple[Callable[[pd.DataFrame], Figure], pd.DataFrame]] = {
        "loss": (partial(loss_figure, marks=marks, original=original), tables["loss"]),
        "understanding": (
            partial(understanding_figure, checkpoints=with_base),
            tables["understanding"],
        ),
        "drift": (partial(drift_figure, checkpoints=checkpoints), tables["drift_summary"]),
        "change_by_place": (change_figure, tables["change"]),
        "overlap": (overlap_figure, where(study.overlap_at_middle(), role="discovery")),
        "overlap_thresholds": (
            partial(overlap_thresholds_figure, checkpoints=checkpoints),
            where(tables["overlap_summary"], **{"role": "discovery", "from": BASE}),
        ),
        "mapping_by_place": (mapping_place_figure, tables["mapping_by_place"]),
        "recruited": (recruited_figure, tables["recruited"]),
        "faithfulness": (
            faithfulness_figure,
            where(curves, measure=FAITHFULNESS, checkpoint=study.last).dropna(subset="mean"),
        ),
        "transfer": (
            partial(transfer_figure, checkpoints=with_base),
            _focus(tables["transfer_summary"]).dropna(subset="mean"),
        ),
        "patching": (patching_figure, _focus(tables["patching_summary"]).dropna(subset="mean")),
        "ablation_rank": (ablation_rank_figure, _focus(tables["ablation_rank_summary"])),
        "baselines": (forest_figure, tables["baselines"].dropna(subset=["low", "high"])),
    }
    return {name: figure(table) for name, (figure, table) in drawings.items() if len(table)}


def _focus(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one condition in whose runs interventions were made, `mapped` where it is one."""
    conditions = sorted(table["condition"].unique())
    return where(table, condition=focus_condition(conditions)) if conditions else table


def _panels(n: int, width: float, rest: float, height: float) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share their vertical axis.

    Args:
        width: of a panel, in inches.
        rest: of the figure's width.
    """
    size = (rest + width * n, height)
    figure, panels = plt.subplots(1, n, figsize=size, sharey=True, squeeze=False)
    return figure, list(panels[0])


def _over_checkpoints(
    axes: Axes, rows: pd.DataFrame, checkpoints: Sequence[str], number: tuple[int, int], label: str
) -> None:
    """One line over the checkpoints, its interval as a whisker; colour and style by number."""
    places = range(len(checkpoints))
    ordered = rows.set_index("checkpoint").loc[list(checkpoints)].assign(at=places)
    errorbars(axes, ordered, look(*number), label)
    axes.set_xticks(places, list(checkpoints))


def loss_figure(loss: pd.DataFrame, marks: dict[str, float], original: pd.DataFrame) -> Figure:
    """Loss per step against the share of training, checkpoints marked, the original study beside.

    Args:
        loss: run, progress (0..1), loss; a thin line a run, a colour and dash a condition.
        marks: progress of each checkpoint.
        original: fraction and loss of the original study's four checkpoints.
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    condition = loss["run"].map(lambda run: Run.parse(run).condition)
    for index, (name, of_condition) in enumerate(loss.groupby(condition, sort=True)):
        line = look(index) | {"marker": None, "linewidth": 1.5}
        label = f"this study, {name}"
        for run, rows in of_condition.groupby("run", sort=True):
            axes.plot(100 * rows["progress"], rows["loss"], label=label, **line)
            label = f"_{run}"  # matplotlib leaves such labels out of the legend
    fractions, losses = 100 * original["fraction"], original["loss"]
    axes.plot(fractions, losses, "s:", color=NEUTRAL, label="original study")
    for checkpoint, progress in marks.items():
        axes.axvline(100 * progress, color="0.85", zorder=0)
        axes.annotate(
            checkpoint,
            (100 * progress, 1),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            fontsize="small",
            color=NEUTRAL,
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
    figure, panels = _panels(len(conditions), width=6, rest=4, height=6)
    for condition, axes in zip(conditions, panels, strict=True):
        rows = where(understanding, condition=condition)
        for index, ((type_, word), of_word) in enumerate(rows.groupby(["type", "word"], sort=True)):
            _over_checkpoints(axes, of_word, checkpoints, (index, index), f"{type_}/{word}")
        axes.set(ylim=(0, 1.02), xlabel="checkpoint", title=f"trained on: {condition}")
    panels[0].set_ylabel("probability of the right answer\n(held-out sentences)")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


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
        (condition, prompts, (colour, 2 * colour + style))
        for colour, condition in enumerate(conditions)
        for style, prompts in enumerate((TASK, CONTROL))
    ]
    lines.append((RANDOM_ADAPTER, TASK, (len(conditions), 2 * len(conditions))))
    for condition, prompts, number in lines:
        rows = where(drift, condition=condition, prompts=prompts)
        if len(rows):
            _over_checkpoints(axes, rows, checkpoints, number, f"{prompts} prompts, {condition}")
    axes.set(
        ylim=(0, 1),
        xlabel="checkpoint (% of training)",
        ylabel="drift from base\n(1 - weighted Jaccard of |effect|)",
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _overlap_measure(overlap: pd.DataFrame) -> tuple[str, tuple[str, str]]:
    """Corrected for chance where all pairs are, else as it is; and the name that says so."""
    if overlap["corrected"].isna().any():
        return "jaccard", ("Jaccard index", "(not corrected)")
    return "corrected", ("chance-corrected", "overlap")


def overlap_figure(overlap: pd.DataFrame) -> Figure:
    """Node overlap between all pairs of checkpoints, a heat map a condition, at one threshold.

    Args:
        overlap: of discovery prompts: condition, from, to, jaccard, corrected.
    """
    measure, name = _overlap_measure(overlap)
    conditions = sorted(overlap["condition"].unique())
    checkpoints = checkpoint_order([*overlap["from"], *overlap["to"]])
    figure, panels = _panels(len(conditions), width=7, rest=1, height=6)
    both_ways = pd.concat([overlap, overlap.rename(columns={"from": "to", "to": "from"})])
    for condition, axes in zip(conditions, panels, strict=True):
        rows = where(both_ways, condition=condition)
        grid = rows.pivot_table(index="from", columns="to", values=measure)
        heat_map(
            grid.reindex(index=checkpoints, columns=checkpoints),
            axes,
            vmin=min(0.0, float(overlap[measure].min())),
            vmax=1,
            cmap="mako",
            annot=True,
            fmt=".2f",
            square=True,
            cbar=condition == conditions[-1],
            cbar_kws={"label": " ".join(name)},
        )
        axes.set(title=condition, xlabel="checkpoint", ylabel="")
    panels[0].set_ylabel("checkpoint")
    return figure


def overlap_thresholds_figure(overlap: pd.DataFrame, checkpoints: Sequence[str]) -> Figure:
    """Overlap with the base model's nodes at every threshold, a panel a condition.

    Args:
        overlap: of discovery prompts from base: condition, to, threshold, jaccard, null, corrected.
        checkpoints: in order, without base.
    """
    measure, name = _overlap_measure(overlap)
    conditions = sorted(overlap["condition"].unique())
    figure, panels = _panels(len(conditions), width=6, rest=3, height=6)
    for condition, axes in zip(conditions, panels, strict=True):
        for index, checkpoint in enumerate(checkpoints):
            rows = where(overlap, condition=condition, to=checkpoint).sort_values("threshold")
            axes.plot(rows["threshold"], rows[measure], label=checkpoint, **look(index))
        axes.set(title=condition, xlabel="share of |effect| that the nodes hold")
    label = "\n".join(name) + " with base"
    panels[0].set(ylabel=label, ylim=(min(0.0, 1.1 * float(overlap[measure].min())), 1))
    panels[-1].legend(title="checkpoint", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _by_place(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """``value`` with the top layer above and the parts in the order of a prompt."""
    grid = table.pivot_table(index="layer", columns="segment", values=value)
    present = [segment for segment in SEGMENTS if segment in grid.columns]
    return grid[present].sort_index(ascending=False)


def change_figure(change: pd.DataFrame) -> Figure:
    """Layer × part of the prompt: where effect was gained and lost, in % of the base's whole.

    Args:
        change: layer, segment, gained, lost.
    """
    figure, panels = _panels(2, width=7, rest=0, height=8)
    top = float(change[["gained", "lost"]].to_numpy().max())
    for axes, measure in zip(panels, ("gained", "lost"), strict=True):
        heat_map(
            _by_place(change, measure),
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


def mapping_place_figure(difference: pd.DataFrame) -> Figure:
    """Layer × part of the prompt: how much more effect moved in `mapped` than in `shuffled`.

    Args:
        difference: layer, segment, mean, low, high; places whose interval is off zero are dotted.
    """
    figure, axes = plt.subplots(figsize=(9, 8))
    grid = _by_place(difference, "mean")
    top = float(difference["mean"].abs().max())
    label = f"{_OF_THE_BASE},\nmapped minus shuffled"
    heat_map(grid, axes, vmin=-top, vmax=top, cmap="vlag", cbar_kws={"label": label})
    clear = difference[(difference["low"] > 0) | (difference["high"] < 0)]
    axes.scatter(
        grid.columns.get_indexer(clear["segment"]) + 0.5,
        grid.index.get_indexer(clear["layer"]) + 0.5,
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
    for index, (direction, sign, hatch) in enumerate((("recruited", 1, ""), ("retired", -1, "//"))):
        rows = where(recruited, direction=direction)
        total = rows["difference"].abs().groupby(rows["layer"]).sum()
        axes.bar(
            list(layers),
            sign * total.reindex(layers, fill_value=0.0),
            label=f"{direction} ({len(rows)})",
            color=look(index)["color"],
            edgecolor="black",
            hatch=hatch,
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


def faithfulness_figure(curves: pd.DataFrame) -> Figure:
    """Faithfulness against circuit size at one checkpoint, a panel a kind of ablation.

    Args:
        curves: rows of the measure faithfulness: ablation, circuit, size, mean, low, high.
    """
    ablations = sorted(curves["ablation"].unique(), reverse=True)
    figure, panels = _panels(len(ablations), width=6, rest=2, height=7)
    for ablation, axes in zip(ablations, panels, strict=True):
        for index, (circuit, label) in enumerate(_CIRCUITS.items()):
            rows = where(curves, ablation=ablation, circuit=circuit).sort_values("size")
            sizes, line = 100 * rows["size"], look(index)
            axes.plot(sizes, rows["mean"], label=label, **line)
            axes.fill_between(sizes, rows["low"], rows["high"], color=line["color"], alpha=0.25)
        axes.axhline(1, color=NEUTRAL, linewidth=1)
        axes.axhline(0, color=NEUTRAL, linewidth=1)
        axes.set(xscale="log", xlabel="circuit size (% of neurons)", title=f"{ablation} ablation")
    panels[0].set_ylabel("faithfulness")
    handles, labels = panels[0].get_legend_handles_labels()
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
    present = [name for name in _PATCHED if name in set(patching["direction"])]
    places = np.arange(len(present))
    for index, (nodes, hatch) in enumerate(((RECRUITED, ""), (RANDOM, "//"))):
        rows = where(patching, nodes=nodes).set_index("direction").reindex(present)
        axes.bar(
            places + 0.4 * index,
            rows["mean"],
            width=0.36,
            yerr=whiskers(rows),
            capsize=6,
            label=f"{nodes} nodes",
            color=look(index)["color"],
            edgecolor="black",
            hatch=hatch,
        )
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xticks(places + 0.2, [_PATCHED[name] for name in present])
    axes.set_ylabel("share of the target's change")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def ablation_rank_figure(ranks: pd.DataFrame) -> Figure:
    """Rank correlation of effect and ablation by checkpoint.

    Args:
        ranks: checkpoint, mean, low, high.
    """
    figure, axes = plt.subplots(figsize=(8, 5))
    checkpoints = checkpoint_order(ranks["checkpoint"])
    rows = ranks.set_index("checkpoint").loc[checkpoints]
    places, colour = range(len(rows)), look(0)["color"]
    axes.errorbar(places, rows["mean"], yerr=whiskers(rows), fmt="o", capsize=6, color=colour)
    axes.axhline(0, color=NEUTRAL, linewidth=1)
    axes.set_xticks(places, checkpoints)
    axes.set(
        ylim=(-1, 1),
        xlim=(-0.5, len(rows) - 0.5),
        xlabel="checkpoint",
        ylabel="Spearman: effect against\nwhat ablation does",
    )
    return figure


def forest_figure(baselines: pd.DataFrame) -> Figure:
    """Every rank correlation with its interval, a panel an outcome.

    Args:
        baselines: outcome, predictor, given, correlation, low, high.
    """
    label = (baselines["predictor"] + ", given " + baselines["given"]).str.replace("_", " ")
    rows = baselines.rename(columns={"correlation": "mean"}).assign(label=label)
    outcomes, givens, labels = (
        list(rows[column].unique()) for column in ("outcome", "given", "label")
    )
    figure, panels = _panels(len(outcomes), width=6, rest=5, height=2 + 0.5 * len(labels))
    for outcome, axes in zip(outcomes, panels, strict=True):
        for index, given in enumerate(givens):
            some = where(rows, outcome=outcome, given=given)
            places = some["label"].map(labels.index)
            points = look(min(index, 2)) | {"linestyle": "none"}
            axes.errorbar(some["mean"], places, xerr=whiskers(some), capsize=5, **points)
        axes.axvline(0, color=NEUTRAL, linewidth=1)
        axes.set(xlim=(-1.05, 1.05), xlabel="rank correlation", title=OUTCOME_NAMES[outcome])
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].invert_yaxis()
    return figure
