"""The tables of the report, as Markdown, and the evidence they are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from circuitdrift.identifiers import BASE, checkpoint_name
from circuitdrift.summaries import checkpoint_order


@dataclass(frozen=True)
class Evidence:
    """The study's tables, as read from disk or summarised from what was read.

    Attributes:
        headlines: evaluation headlines by run, then checkpoint.
        drift: one row per prompt and pair of checkpoints.
        features: the features whose effect changed most, per pair of checkpoints.
        checkpoint_loss: mean loss per run and checkpoint.
        drift_summary: drift from base with intervals.
        change: layer × segment map of effect gained and lost.
        original: the original study's figures.
    """

    headlines: Mapping[str, Any]
    drift: pd.DataFrame
    features: pd.DataFrame
    checkpoint_loss: pd.DataFrame
    drift_summary: pd.DataFrame
    change: pd.DataFrame
    original: Mapping[str, Any]


def report_tables(evidence: Evidence, checkpoints: Sequence[str]) -> dict[str, str]:
    """Every table of the page by the name that the template gives it."""
    return {
        "understanding": _understanding_table(evidence.headlines),
        "loss": _loss_table(evidence),
        "drift": _drift_table(evidence.drift),
        "scores": _scores_table(evidence.drift),
        "features": _feature_table(evidence.features, checkpoints[-1]),
    }


def _understanding_table(headlines: Mapping[str, Any]) -> str:
    names = {
        "accuracy": "accuracy",
        "top1": "top1",
        "p": "p(answer)",
        "log_odds": "log-odds",
        "reverse_accuracy": "reverse",
        "false_positive": "unseen",
        "control_loss": "control loss",
    }
    rows = [
        {
            "run": run,
            "checkpoint": checkpoint,
            **{name: headlines[run][checkpoint][measure] for measure, name in names.items()},
        }
        for run in sorted(headlines)
        for checkpoint in checkpoint_order(list(headlines[run]))
    ]
    return _markdown(pd.DataFrame(rows))


def _loss_table(evidence: Evidence) -> str:
    ours = evidence.checkpoint_loss.pivot_table(index="checkpoint", columns="run", values="loss")
    original = pd.DataFrame(evidence.original["losses"])
    names = [checkpoint_name(fraction) for fraction in original["fraction"]]
    ours["original study"] = pd.Series(original["loss"].to_numpy(), index=names)
    return _markdown(ours.reset_index())


def _drift_table(drift: pd.DataFrame) -> str:
    measures = {
        "drift": "drift",
        "signed_drift": "signed",
        "influence_drift": "influence",
        "spearman": "Spearman",
        "node_jaccard": "nodes",
        "nodes_added": "+",
        "nodes_removed": "-",
        "edge_jaccard": "edges",
        "edges_added": "+ edges",
        "edges_removed": "- edges",
    }
    means = drift.groupby(["run", "from", "to", "role"], sort=False)[list(measures)].mean()
    return _markdown(means.rename(columns=measures).reset_index())


def _scores_table(drift: pd.DataFrame) -> str:
    measures = ["replacement", "completeness", "error_mass"]
    from_base = drift[drift["from"] == BASE]
    base = from_base.drop_duplicates("prompt")[["role", *(f"{name}_from" for name in measures)]]
    base = base.set_axis(["role", *measures], axis=1).assign(run=BASE, checkpoint=BASE)
    later = from_base[["run", "to", "role", *(f"{name}_to" for name in measures)]]
    later = later.set_axis(["run", "checkpoint", "role", *measures], axis=1)
    both = pd.concat([base, later])
    means = both.groupby(["run", "checkpoint", "role"], sort=False)[measures].mean()
    return _markdown(means.reset_index())


def _feature_table(features: pd.DataFrame, checkpoint: str) -> str:
    rows = features[(features["from"] == BASE) & (features["to"] == checkpoint)]
    columns = ["run", "feature", "effect_from", "effect_to", "change", "agreement"]
    return _markdown(rows.groupby("run", sort=True).head(10)[columns])


def _markdown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, floatfmt=".3f"))
