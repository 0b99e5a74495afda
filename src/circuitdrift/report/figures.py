"""Every figure of the report, by the name of its file: words as dots, their means beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuitdrift.core.study import BASE, TRAINED
from circuitdrift.report.faithfulness import CURVE, ENOUGH, by_word
from circuitdrift.report.style import NEUTRAL, checkpoint, errorbars, look
from circuitdrift.report.summaries import Study, where

RANDOM_ADAPTER = "random adapter"
NODES = {
    "chosen": "chosen neurons",
    "effect null": "null: like effect",
    "activation null": "null: like activation change",
}
CIRCUITS = {"own": "its own circuit (thin: a word; thick: their mean)", "random": "random circuits"}
_WIDTH = 14  # inches; a page shows a figure at about half of that


def draw(study: Study) -> dict[str, Figure]:
    """The figures of the page; one without data is left out."""
    drawn = {
        "summary": summary_figure(study),
        "understanding": understanding_figure(study),
        "drift": drift_figure(study),
        "closed": closed_figure(study),
        "faithfulness": faithfulness_figure(study),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def summary_figure(study: Study) -> Figure:
    """Choice accuracy, frame probability, drift over checkpoints, distance closed over k."""
    panels = [_accuracy_panel, _frame_panel, _course_panel]
    if study.tables["closed"]["value"].notna().any():
        panels.append(_closed_panel)
    figure, axes = plt.subplots(2, 2, figsize=(_WIDTH + 4, 14))
    for letter, panel, place in zip("abcd", panels, axes.flat, strict=False):
        title = panel(study, place)
        place.set_title(f"{letter}  {title}", loc="left", fontweight="bold")
        # Below the panel, so that it hides no point.
        place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize="small")
    for empty in axes.flat[len(panels) :]:
        empty.remove()
    return figure


def _accuracy_panel(study: Study, axes: Axes) -> str:
    words, means = _at_the_end(study, ["accuracy"])
    groups = {kind: f"words of type {kind}" for kind in sorted(words["type"].unique())}
    words = words.assign(measure=words["type"])
    groups["accuracy"] = "mean over words"
    _beside(axes, words, means, x="condition", places=_models(study), groups=groups)
    _chance(axes, study)
    _share_axis(axes, "choice accuracy")
    return "is the taught meaning preferred?"


def _frame_panel(study: Study, axes: Axes) -> str:
    groups = {"frame": "trained words", "frame_unseen": "never-trained words"}
    words, means = _at_the_end(study, list(groups))
    _beside(axes, words, means, x="condition", places=_models(study), groups=groups)
    _share_axis(axes, "probability of the type's answers")
    return "is any meaning of the type expected?"


def _course_panel(study: Study, axes: Axes) -> str:
    """Mean drift of every condition over the checkpoints, with the band of different runs."""
    means = where(study.tables["by_condition"], measure="drift")
    _band(study, axes, "near")
    middle = (len(study.conditions) - 1) / 2
    for index, condition in enumerate(study.conditions):
        rows = where(means, condition=condition)
        at = _places(rows["checkpoint"], study.checkpoints) + 0.12 * (index - middle)
        errorbars(axes, rows.assign(at=at), look(index), condition)
    _checkpoint_axis(study, axes)
    axes.set(ylim=(0, None), ylabel="drift from base")
    return "how far have the circuits moved?"


def _closed_panel(study: Study, axes: Axes) -> str:
    means = where(study.tables["closed"], word="").rename(columns={"value": "mean"})
    for index, (nodes, label) in enumerate(NODES.items()):
        rows = where(means, nodes=nodes).sort_values("k")
        errorbars(axes, rows.assign(at=rows["k"] * 1.08 ** (index - 1)), look(index), label)
    axes.axhline(0, color=NEUTRAL, linewidth=1)
    _log_axis(axes, means["k"])
    axes.set(xlabel="neurons exchanged, per word", ylabel="share of the distance closed")
    return "do a few neurons carry it?"


def understanding_figure(study: Study) -> Figure:
    """Accuracy, frame, substitution and discrimination of every word under every condition."""
    measures = {
        "accuracy": "choice accuracy",
        "frame": "probability of\nthe type's answers",
        "substitution": "substitution",
        "discrimination": "discrimination",
    }
    figure, panels = plt.subplots(4, 1, figsize=(_WIDTH, 16))
    groups = {name: name for name in _models(study)}
    for axes, (measure, label) in zip(panels, measures.items(), strict=True):
        rows, _ = _at_the_end(study, [measure])
        rows = rows.assign(place=rows["word"] + "\n" + rows["type"]).sort_values(["type", "word"])
        if measure == "frame":
            unseen, _ = _at_the_end(study, ["frame_unseen"])
            unseen = unseen.assign(place="not trained\n" + unseen["type"]).sort_values("type")
            rows = pd.concat([rows, unseen])
        rows, places = rows.assign(measure=rows["condition"]), list(rows["place"].unique())
        _beside(axes, rows, rows[:0], x="place", places=places, groups=groups)
        _share_axis(axes, label)
        if measure in ("accuracy", "substitution"):
            _chance(axes, study)
        elif measure == "discrimination":
            axes.axhline(0.5, color=NEUTRAL, linewidth=1, linestyle=":")
        for edge in np.arange(len(places) - 1) + 0.5:
            axes.axvline(edge, color="0.85", linewidth=1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def drift_figure(study: Study) -> Figure:
    """Drift of near and of control prompts and gain, by condition and checkpoint."""
    labels = {
        "drift": "drift from base,\nnear prompts",
        "drift_control": "drift from base,\ncontrol prompts",
        "gain": "gain, near prompts\n(log ratio)",
    }
    figure, panels = plt.subplots(3, 1, figsize=(_WIDTH, 13.5))
    for axes, (measure, label) in zip(panels, labels.items(), strict=True):
        words, means = (
            where(study.tables[name], measure=measure) for name in ("by_word", "by_condition")
        )
        words = words[words["word"] != ""]  # control prompts have none
        groups = {name: name for name in study.conditions}
        random = random_drift(study)
        if measure == "drift" and len(random):
            words = pd.concat([words, random])
            groups[RANDOM_ADAPTER] = RANDOM_ADAPTER
        if measure == "gain":
            axes.axhline(0, color=NEUTRAL, linewidth=1)
        else:
            _band(study, axes, "near" if measure == "drift" else "control")
        words, means = (rows.assign(measure=rows["condition"]) for rows in (words, means))
        _beside(axes, words, means, x="checkpoint", places=study.checkpoints, groups=groups)
        _checkpoint_axis(study, axes)
        axes.set(ylabel=label, ylim=(None if measure == "gain" else 0, None))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def closed_figure(study: Study) -> Figure | None:
    """Share of the distance that exchanged neurons close, word by word, with both nulls."""
    closed = study.tables["closed"]
    rows = closed[closed["word"] != ""].dropna(subset="value")
    words = sorted(set(zip(rows["type"], rows["word"], strict=True)))
    if not words:
        return None
    shape = (-(-len(words) // 3), 3)
    size = (_WIDTH, 1 + 4 * shape[0])
    figure, panels = plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (type_, word) in zip(panels.flat, words, strict=False):
        for index, (nodes, label) in enumerate(NODES.items()):
            line = where(rows, type=type_, word=word, nodes=nodes).sort_values("k")
            axes.plot(line["k"], line["value"], label=label, **look(index))
        axes.axhline(0, color=NEUTRAL, linewidth=1)
        _log_axis(axes, rows["k"])
        axes.set(title=f"{word} ({type_})")
    for empty in panels.flat[len(words) :]:
        empty.remove()
    figure.supylabel("share of the distance closed", fontsize="medium")
    figure.supxlabel("neurons exchanged, per word", fontsize="medium")
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def faithfulness_figure(study: Study) -> Figure | None:
    """Faithfulness of every word over circuit size, a panel a model and a kind of ablation."""
    curves = by_word(study.tables["faithfulness"], [*CURVE, "size"]).dropna(subset="f")
    if curves.empty:
        return None
    models = [name for name in (BASE, study.last) if name in set(curves["model"])]
    ablations = sorted(curves["ablation"].unique())
    shape = (len(models), len(ablations))
    size = (2 + 6 * shape[1], 1 + 5 * shape[0])
    figure, panels = plt.subplots(*shape, figsize=size, sharex=True, sharey=True, squeeze=False)
    for (model, ablation), axes in zip(product(models, ablations), panels.flat, strict=True):
        _faithfulness_panel(where(curves, model=model, ablation=ablation), axes)
        name = "base model" if model == BASE else f"after {checkpoint(model)}"
        axes.set_title(f"{name}, {ablation} ablation")
    figure.supylabel("faithfulness", fontsize="medium")
    figure.supxlabel("circuit size (% of units)", fontsize="medium")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center")
    return figure


def _faithfulness_panel(curves: pd.DataFrame, axes: Axes) -> None:
    """A thin line a word, a thick one for their mean."""
    for height, dashes in ((0, "-"), (ENOUGH, ":"), (1, "-")):
        axes.axhline(height, color=NEUTRAL, linewidth=1, linestyle=dashes)
    for index, (circuit, label) in enumerate(CIRCUITS.items()):
        grid = where(curves, circuit=circuit).pivot_table(
            index="size", columns=["type", "word"], values="f"
        )
        thin = {"color": look(index)["color"], "linewidth": 0.8, "alpha": 0.6}
        axes.plot(100 * grid.index, grid, **thin)
        axes.plot(100 * grid.index, grid.mean(axis=1), label=label, **look(index))
    _log_axis(axes, 100 * curves["size"])


def random_drift(study: Study) -> pd.DataFrame:
    """condition, checkpoint, type, word, mean: drift of random adapters by word, over all runs."""
    drift = where(study.tables["drift"], **{"from": BASE, "role": "near"})
    rows = drift[drift["change"] != TRAINED].rename(columns={"to": "checkpoint"})
    means = rows.groupby(["checkpoint", "type", "unit"], as_index=False)["drift"].mean()
    names = {"drift": "mean", "unit": "word"}
    return means.rename(columns=names).assign(condition=RANDOM_ADAPTER)


def run_pairs(study: Study, role: str) -> pd.DataFrame:
    """checkpoint, drift: mean over units of each pair of runs of a condition at one checkpoint."""
    pairs = where(study.tables["between_runs"], role=role)
    pairs = pairs[pairs["checkpoint_a"] == pairs["checkpoint_b"]]
    conditions = [pairs[run].str.rsplit("-", n=1).str[0] for run in ("run_a", "run_b")]
    alike = pairs[conditions[0] == conditions[1]].rename(columns={"checkpoint_a": "checkpoint"})
    return alike.groupby(["checkpoint", "run_a", "run_b"], as_index=False)["drift"].mean()


def _models(study: Study) -> list[str]:
    return [BASE, *study.conditions]


def _at_the_end(study: Study, measures: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Words, and means over them, after training and in the base model."""
    words, means = (
        table[table["measure"].isin(measures) & table["checkpoint"].isin([BASE, study.last])]
        for table in (study.tables["by_word"], study.tables["by_condition"])
    )
    return words, means


def _beside(
    axes: Axes,
    words: pd.DataFrame,
    means: pd.DataFrame,
    *,
    x: str,
    places: Sequence[str],
    groups: Mapping[str, str],
) -> None:
    """At each place the groups side by side: a dot a word, right of it their mean and interval.

    Args:
        words: measure (the group), ``x`` (the place), mean.
        means: measure, ``x``, mean, low, high.
        groups: their labels.
    """
    slot = 0.8 / len(groups)
    for index, (group, label) in enumerate(groups.items()):
        dots, points = (where(rows, measure=group) for rows in (words, means))
        centre = slot * (index - (len(groups) - 1) / 2)
        apart = slot / 4 if len(dots) and len(points) else 0.0
        mark = look(index) | {"linestyle": "none", "markersize": 8}
        name = f"_{label}" if len(points) else label  # matplotlib leaves such out of the legend
        at = _places(dots[x], places) + centre - apart
        axes.plot(at, dots["mean"], label=name, fillstyle="none", **mark)
        points = points.assign(at=_places(points[x], places) + centre + apart)
        errorbars(axes, points, mark, label)
    axes.set_xticks(range(len(places)), list(places), fontsize="small")
    axes.set(xlim=(-0.5, len(places) - 0.5), xlabel="")


def _places(names: pd.Series, places: Sequence[str]) -> pd.Series:
    # Names without rows would stay text.
    return names.map({place: at for at, place in enumerate(places)}).astype(float)


def _band(study: Study, axes: Axes, role: str) -> None:
    """Behind each checkpoint, how far runs of one condition lie apart there, pair by pair."""
    drift = run_pairs(study, role).groupby("checkpoint")["drift"]
    if drift.ngroups == 0:
        return
    low, high = (ends.reindex(study.checkpoints) for ends in (drift.min(), drift.max()))
    label = "two runs of one condition\n(lowest to highest pair)"
    places = np.arange(len(low))
    axes.bar(places, high - low, 0.9, bottom=low, color="0.87", label=label, zorder=0)


def _chance(axes: Axes, study: Study) -> None:
    """Lines at what guessing among a type's answers gives."""
    kinds = [kind for kind, _ in study.words]
    for chance in {1 / kinds.count(kind) for kind in kinds}:
        axes.axhline(chance, color=NEUTRAL, linewidth=1, linestyle=":", zorder=0)


def _checkpoint_axis(study: Study, axes: Axes) -> None:
    names = [checkpoint(name) for name in study.checkpoints]
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.5, len(names) - 0.5), xlabel="checkpoint (share of training)")


def _share_axis(axes: Axes, label: str) -> None:
    """From 0 to 1, and as far as an interval goes beyond."""
    low, high = axes.get_ylim()
    axes.set(ylim=(min(low, -0.02), max(high, 1.02)), ylabel=label)


def _log_axis(axes: Axes, values: pd.Series) -> None:
    """Ticks at the values that were tried."""
    axes.set_xscale("log")
    axes.set_xticks(values.unique(), [f"{value:g}" for value in values.unique()])
    axes.minorticks_off()
