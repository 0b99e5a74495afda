"""The tables of the report, as Markdown; an empty text stands for a table without rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from circuitdrift.baselines import CHECKPOINT_TOO, NOTHING
from circuitdrift.headlines import headline_means
from circuitdrift.identifiers import BASE, TRAINED, Run, checkpoint_name
from circuitdrift.markdown import literal, markdown, number, p_value, with_intervals
from circuitdrift.summaries.faithfulness_curves import CMD, CPR
from circuitdrift.summaries.grids import PROMPTS_OF_ROLE, checkpoint_order, focus_condition
from circuitdrift.summaries.study import StudyTables, Summaries

NODES_PER_WORD = 3


def report_tables(
    tables: StudyTables, summaries: Summaries, checkpoints: Sequence[str], threshold: float
) -> dict[str, str]:
    """Every table of the page by the name that the template gives it.

    Args:
        checkpoints: in the order of training.
        threshold: the one at which the overlap of nodes is shown.
    """
    last = checkpoints[-1]
    shown = {
        "understanding": _understanding(tables.headlines),
        "loss": _loss(summaries.checkpoint_loss, tables.original),
        "drift": _drift(summaries.drift),
        "graphs": _graphs(tables.drift),
        "overlap": _overlap(summaries.overlap, threshold),
        "mapping": _mapping(summaries.mapping, last),
        "features": _features(tables.features, last),
        "recruited": _recruited(tables.recruited),
        "moved": _moved(tables.moved),
        "areas": _areas(summaries.faithfulness, [BASE, last]),
        "transfer": _transfer(summaries.transfer, [BASE, *checkpoints]),
        "patching": with_intervals(summaries.patching, "share of the change"),
        "specificity": with_intervals(summaries.specificity, "fall of the target (logits)"),
        "ablation_rank": with_intervals(_in_order(summaries.ablation_rank), "Spearman"),
        "baselines": _baselines(summaries.baselines),
        "nulls": tables.recruitment_nulls,
        "positive_control": tables.positive_control,
    }
    return {name: markdown(table) for name, table in shown.items()}


def _understanding(headlines: Mapping[str, Any]) -> pd.DataFrame:
    names = {
        "condition": "trained on",
        "checkpoint": "checkpoint",
        "accuracy": "accuracy",
        "top1": "top1",
        "p": "p(answer)",
        "log_odds": "log-odds",
        "reverse_accuracy": "reverse",
        "false_positive": "unseen",
        "control_loss": "control loss",
    }
    means = headline_means(headlines)
    means = means.sort_values("condition", key=lambda name: name != BASE, kind="stable")
    return means.assign(condition=means["condition"].replace({BASE: "nothing"}))[
        list(names)
    ].rename(columns=names)


def _loss(checkpoint_loss: pd.DataFrame, original: Mapping[str, Any]) -> pd.DataFrame:
    condition = checkpoint_loss["run"].map(lambda run: Run.parse(run).condition)
    ours = checkpoint_loss.assign(condition=condition).pivot_table(
        index="checkpoint", columns="condition", values="loss"
    )
    theirs = pd.DataFrame(original["losses"])
    names = [checkpoint_name(fraction) for fraction in theirs["fraction"]]
    ours["original study"] = pd.Series(theirs["loss"].to_numpy(), index=names)
    return ours.reset_index()


def _drift(summary: pd.DataFrame) -> pd.DataFrame:
    """One column a checkpoint."""
    texts = with_intervals(summary, "drift")
    grid = texts.pivot_table(
        index=["condition", "prompts"], columns="checkpoint", values="drift", aggfunc="first"
    )
    return grid.reset_index()


def _graphs(drift: pd.DataFrame) -> pd.DataFrame:
    """What the pruned graphs, of the prompts that have one, say of the way from base."""
    measures = {
        "influence_drift": "influence drift",
        "node_jaccard": "nodes",
        "nodes_added": "+ nodes",
        "nodes_removed": "- nodes",
        "edge_jaccard": "edges",
        "edges_added": "+ edges",
        "edges_removed": "- edges",
        "replacement_to": "replacement",
        "completeness_to": "completeness",
        "error_mass_to": "error mass",
    }
    rows = drift[(drift["from"] == BASE) & (drift["change"] == TRAINED)]
    rows = rows.dropna(subset=["influence_drift"])
    rows = rows.assign(role=rows["role"].map(PROMPTS_OF_ROLE))
    means = rows.groupby(["condition", "to", "role"], as_index=False)[list(measures)].mean()
    return means.rename(columns={**measures, "to": "checkpoint", "role": "prompts"})


def _overlap(summary: pd.DataFrame, threshold: float) -> pd.DataFrame:
    rows = summary[
        (summary["from"] == BASE)
        & ((summary["threshold"] - threshold).abs() < 1e-9)
        & (summary["role"] != "evaluation")
    ]
    rows = rows.assign(role=rows["role"].map(PROMPTS_OF_ROLE))
    columns = ["condition", "role", "to", "jaccard", "null", "ceiling", "corrected", "n_runs"]
    return rows[columns].rename(columns={"role": "prompts", "to": "checkpoint", "n_runs": "runs"})


def _mapping(mapping: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    rows = with_intervals(mapping[mapping["checkpoint"] == checkpoint], "difference")
    for column in ("p", "q"):
        rows[column] = [p_value(value) for value in rows[column]]
    return rows.rename(columns={"hedges_g": "g", "n_seeds": "seeds", "n_prompts": "n prompts"})


def _features(features: pd.DataFrame, checkpoint: str) -> pd.DataFrame:
    """The strongest changes of the first run of the condition that the page is about."""
    rows = features[(features["from"] == BASE) & (features["to"] == checkpoint)]
    if rows.empty:
        return rows
    rows = rows[rows["condition"] == focus_condition(sorted(rows["condition"].unique()))]
    columns = ["run", "feature", "effect_from", "effect_to", "change", "agreement"]
    return rows[rows["run"] == rows["run"].iloc[0]][columns].head(10)


def _moved(moved: pd.DataFrame) -> pd.DataFrame:
    """Means over the runs of a condition."""
    names = {"n_tested": "tested", "n_grown": "grown", "n_shrunk": "shrunk"}
    means = moved.groupby(["condition", "change"], as_index=False)[list(names)].mean()
    trained_first = means.sort_values(
        ["condition", "change"], key=lambda column: column.where(column != TRAINED, "")
    )
    return trained_first.rename(columns=names)


def _recruited(recruited: pd.DataFrame) -> pd.DataFrame:
    """The strongest few of each word."""
    if recruited.empty:
        return recruited
    strength = recruited["difference"].abs()
    order = recruited.assign(strength=strength).sort_values(
        ["type", "word", "strength"], ascending=[True, True, False], kind="stable"
    )
    top = order.groupby(["type", "word"], sort=False).head(NODES_PER_WORD)
    change = top[["difference", "low", "high"]].rename(columns={"difference": "mean"})
    effects = with_intervals(change, "text")["text"]
    return pd.DataFrame(
        {
            "word": top["type"] + "/" + top["word"],
            "node": top["name"],
            "direction": top["direction"],
            "base": top["effect_base"],
            "mapped": top["effect_mapped"],
            "shuffled": top["effect_shuffled"],
            "mapped - shuffled": effects,
            "g": top["effect_size"],
            "q": [p_value(value) for value in top["q"]],
            "agreement": top["agreement"],
            "on evaluation prompts": top["evaluation_difference"],
            "promotes": top["promotes"].map(literal),
            "suppresses": top["suppresses"].map(literal),
        }
    )


def _areas(faithfulness: pd.DataFrame, checkpoints: Sequence[str]) -> pd.DataFrame:
    rows = faithfulness[
        faithfulness["measure"].isin([CPR, CMD]) & faithfulness["checkpoint"].isin(checkpoints)
    ]
    if rows.empty:
        return rows
    texts = with_intervals(rows, "area")
    grid = texts.pivot_table(
        index=["condition", "checkpoint", "ablation", "circuit"],
        columns="measure",
        values="area",
        aggfunc="first",
    )
    columns = ["condition", "ablation", "checkpoint", "circuit", CPR, CMD]
    return _in_order(grid.reset_index())[columns]


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The base model's rows before those of the checkpoints, within a condition and ablation."""
    order = checkpoint_order(list(table["checkpoint"]))
    before = [name for name in ("condition", "ablation") if name in table]
    ordered = table.assign(place=table["checkpoint"].map(order.index))
    return ordered.sort_values([*before, "place"], kind="stable").drop(columns="place")


def _transfer(transfer: pd.DataFrame, checkpoints: Sequence[str]) -> pd.DataFrame:
    if transfer.empty:
        return transfer
    grid = transfer.assign(f=[number(value) for value in transfer["mean"]]).pivot_table(
        index=["condition", "circuit_from"], columns="model", values="f", aggfunc="first"
    )
    grid = grid[[name for name in checkpoints if name in grid.columns]].reset_index()
    place = grid["circuit_from"].map(list(checkpoints).index)
    ordered = grid.assign(place=place).sort_values(["condition", "place"], kind="stable")
    return ordered.drop(columns="place").rename(columns={"circuit_from": "circuit of"})


def _baselines(baselines: pd.DataFrame) -> pd.DataFrame:
    if baselines.empty:
        return baselines
    rows = baselines[baselines["given"].isin([NOTHING, CHECKPOINT_TOO])]
    texts = with_intervals(rows.rename(columns={"correlation": "mean"}), "rank correlation")
    return texts.assign(
        outcome=rows["outcome"].str.replace("_", " "),
        predictor=rows["predictor"].str.replace("_", " "),
        adds=["yes" if adds else "no" for adds in rows["adds"]],
    )
