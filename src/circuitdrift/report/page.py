"""The report's page: its tables and the numbers that its sentences state.

The sentences stand in ``report.md.j2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.core.study import BASE, TRAINED, Run, checkpoint_name
from circuitdrift.report.baselines import ALL_OTHERS, CHECKPOINT_TOO, DRIFT_PREDICTOR, NOTHING
from circuitdrift.report.faithfulness import CMD, CPR, SMALLEST_DIFFERENCE
from circuitdrift.report.figures import OUTCOME_NAMES
from circuitdrift.report.mapping import BETWEEN, DRIFT
from circuitdrift.report.style import interval, literal, markdown, number, p_value, page_template
from circuitdrift.report.summaries import (
    MAPPED,
    PROMPTS_OF_ROLE,
    SHUFFLED,
    TASK,
    Study,
    checkpoint_order,
    focus_condition,
    from_base,
    middle_threshold,
    where,
)
from circuitdrift.report.verdicts import Verdict, limits, recruited_counts

PAGE = Path(__file__).with_name("report.md.j2")
NODES_PER_WORD = 3


def render_report(study: Study, verdicts: Sequence[Verdict], figures: Sequence[str]) -> str:
    """The report as Markdown.

    Args:
        figures: the names of those that were drawn.
    """
    tables = study.tables
    control = tables["positive_control"]
    return page_template(PAGE).render(
        params=study.params,
        original=study.original,
        study=_numbers(study),
        verdicts=verdicts,
        limits=limits(study),
        last=study.last,
        mapping_last=_mapping_at_last(study),
        place=_extremes(study),
        recruited=recruited_counts(study),
        positive={"found": int((control["rank"] == 1).sum()), "n": len(control)},
        undefined={
            name: bool(tables[f"{name}_summary"]["mean"].isna().any())
            for name in ("faithfulness", "patching")
        },
        drift_adds=_drift_adds(tables["baselines"]),
        tables={name: markdown(table) for name, table in _tables(study).items()},
        figures=set(figures),
    )


def _numbers(study: Study) -> dict[str, Any]:
    params, drift = study.params, study.tables["drift"]
    prompts = drift.drop_duplicates("prompt")
    with_graph = drift[drift["from"] == BASE].dropna(subset=["influence_drift"])
    conditions = [run.condition for run in params.runs.all]
    n_runs = min(conditions.count(name) for name in (MAPPED, SHUFFLED))
    return {
        "total_steps": study.total_steps,
        "checkpoints": [f"{100 * fraction:g}" for fraction in params.train.checkpoints],
        "threshold": middle_threshold(params.compare.thresholds),
        "smallest_difference": SMALLEST_DIFFERENCE,
        "n_words": int(prompts["word"].dropna().nunique()),
        "n_prompts": {role: int((prompts["role"] == role).sum()) for role in PROMPTS_OF_ROLE},
        "n_circuits": study.n_circuits,
        "n_graph_prompts": int(with_graph["prompt"].nunique()),
        "random_adapters": bool((drift["change"] != TRAINED).any()),
        "n_runs": n_runs,
        "smallest_p": 2 / math.comb(2 * n_runs, n_runs) if n_runs > 1 else None,
    }


def _mapping_at_last(study: Study) -> dict[str, Any]:
    """The rows on task prompts of what `mapped` has beyond `shuffled`, None where not measured."""
    rows = where(study.tables["mapping"], checkpoint=study.last, prompts=TASK)
    of = {"drift": where(rows, measure=DRIFT), "between": where(rows, measure=BETWEEN)}
    return {name: row.iloc[0].to_dict() if len(row) else None for name, row in of.items()}


def _extremes(study: Study) -> dict[str, Any]:
    """Where most was gained, most was lost, and most moved in `mapped` beyond `shuffled`."""
    change, beyond = study.tables["change"], study.tables["mapping_by_place"]
    return {
        **{name: change.nlargest(1, name).iloc[0].to_dict() for name in ("gained", "lost")},
        "mapping": None if beyond.empty else beyond.nlargest(1, "mean").iloc[0].to_dict(),
    }


def _drift_adds(baselines: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether drift adds to all the cheap measures, by outcome; none without an interval."""
    rows = where(baselines.dropna(subset=["low", "high"]), predictor=DRIFT_PREDICTOR)
    rows = rows.assign(mean=rows["correlation"], outcome=rows["outcome"].map(OUTCOME_NAMES))
    given = pd.concat([where(rows, given=name) for name in (ALL_OTHERS, CHECKPOINT_TOO)])
    return [{str(key): value for key, value in row.items()} for row in given.to_dict("records")]


def _tables(study: Study) -> dict[str, pd.DataFrame]:
    """Every table of the page by the name that the template gives it."""
    tables = study.tables
    return {
        "understanding": _understanding(tables["headlines"]),
        "loss": _loss(study),
        "drift": _spread(
            _with_intervals(tables["drift_summary"], "drift"),
            ["condition", "prompts"],
            "checkpoint",
            "drift",
        ),
        "graphs": _graphs(tables["drift"]),
        "overlap": _overlap(study.overlap_at_middle()),
        "mapping": _mapping(where(tables["mapping"], checkpoint=study.last)),
        "features": _features(
            where(tables["changed_features"], **{"from": BASE, "to": study.last})
        ),
        "recruited": _recruited(tables["recruited"]),
        "moved": _moved(tables["moved_features"]),
        "areas": _areas(tables["faithfulness_summary"], [BASE, study.last]),
        "transfer": _transfer(tables["transfer_summary"], [BASE, *study.checkpoints]),
        "patching": _with_intervals(tables["patching_summary"], "share of the change"),
        "specificity": _with_intervals(
            tables["specificity_summary"], "fall of the target (logits)"
        ),
        "ablation_rank": _with_intervals(_in_order(tables["ablation_rank_summary"]), "Spearman"),
        "baselines": _baselines(tables["baselines"]),
        "nulls": tables["recruitment_nulls"],
        "positive_control": tables["positive_control"],
        "claims": tables["claims"],
    }


def _with_intervals(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """``mean``, ``low`` and ``high`` as one column of text."""
    texts = [interval(row) for row in table[["mean", "low", "high"]].to_dict("records")]
    texts_in_place = table.assign(mean=pd.Series(texts, index=table.index, dtype=object))
    return texts_in_place.drop(columns=["low", "high"]).rename(columns={"mean": name})


def _named(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """These columns alone, in this order, under these names."""
    return table[list(names)].rename(columns=names)


def _understanding(headlines: pd.DataFrame) -> pd.DataFrame:
    base_first = headlines.sort_values("condition", key=lambda name: name != BASE, kind="stable")
    return _named(
        base_first.assign(condition=base_first["condition"].replace({BASE: "nothing"})),
        {
            "condition": "trained on",
            "checkpoint": "checkpoint",
            "accuracy": "accuracy",
            "top1": "top1",
            "p": "p(answer)",
            "log_odds": "log-odds",
            "reverse_accuracy": "reverse",
            "false_positive": "unseen",
            "control_loss": "control loss",
        },
    )


def _loss(study: Study) -> pd.DataFrame:
    loss = study.tables["checkpoint_loss"]
    condition = loss["run"].map(lambda run: Run.parse(run).condition)
    ours = loss.assign(condition=condition).pivot_table(
        index="checkpoint", columns="condition", values="loss"
    )
    theirs = {checkpoint_name(row["fraction"]): row["loss"] for row in study.original["losses"]}
    return ours.assign(**{"original study": pd.Series(theirs)}).reset_index()


def _spread(table: pd.DataFrame, index: list[str], columns: str, values: str) -> pd.DataFrame:
    """One row for each value of ``index``, one column for each of ``columns``."""
    grid = table.pivot_table(index=index, columns=columns, values=values, aggfunc="first")
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
    rows = where(from_base(drift), change=TRAINED).dropna(subset=["influence_drift"])
    by = ["condition", "checkpoint", "prompts"]
    return rows.groupby(by, as_index=False)[list(measures)].mean().rename(columns=measures)


def _overlap(overlap: pd.DataFrame) -> pd.DataFrame:
    rows = overlap[(overlap["from"] == BASE) & (overlap["role"] != "evaluation")]
    rows = rows.assign(role=rows["role"].map(PROMPTS_OF_ROLE))
    columns = ["condition", "role", "to", "jaccard", "null", "ceiling", "corrected", "n_runs"]
    return rows[columns].rename(columns={"role": "prompts", "to": "checkpoint", "n_runs": "runs"})


def _mapping(mapping: pd.DataFrame) -> pd.DataFrame:
    rows = _with_intervals(mapping, "difference")
    for column in ("p", "q"):
        rows[column] = [p_value(value) for value in rows[column]]
    return rows.rename(columns={"hedges_g": "g", "n_seeds": "seeds", "n_prompts": "n prompts"})


def _features(features: pd.DataFrame) -> pd.DataFrame:
    """The strongest changes of the first run of the condition that the page is about."""
    if features.empty:
        return features
    rows = where(features, condition=focus_condition(sorted(features["condition"].unique())))
    columns = ["run", "feature", "effect_from", "effect_to", "change", "agreement"]
    first = where(rows, run=rows["run"].iloc[0])[columns].head(10)
    return first.sort_values("change", key=abs, ascending=False, kind="stable")


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
    order = recruited.assign(strength=recruited["difference"].abs()).sort_values(
        ["type", "word", "strength"], ascending=[True, True, False], kind="stable"
    )
    top = order.groupby(["type", "word"], sort=False).head(NODES_PER_WORD)
    shown = top.assign(
        word=top["type"] + "/" + top["word"],
        mean=top["difference"],
        q=[p_value(value) for value in top["q"]],
        promotes=top["promotes"].map(literal),
        suppresses=top["suppresses"].map(literal),
    )
    return _named(
        _with_intervals(shown, "mapped - shuffled"),
        {
            "word": "word",
            "name": "node",
            "direction": "direction",
            "effect_base": "base",
            "effect_mapped": "mapped",
            "effect_shuffled": "shuffled",
            "mapped - shuffled": "mapped - shuffled",
            "effect_size": "g",
            "q": "q",
            "agreement": "agreement",
            "evaluation_difference": "on evaluation prompts",
            "promotes": "promotes",
            "suppresses": "suppresses",
        },
    )


def _areas(faithfulness: pd.DataFrame, checkpoints: Sequence[str]) -> pd.DataFrame:
    rows = faithfulness[
        faithfulness["measure"].isin([CPR, CMD]) & faithfulness["checkpoint"].isin(checkpoints)
    ]
    if rows.empty:
        return rows
    by = ["condition", "checkpoint", "ablation", "circuit"]
    grid = _spread(_with_intervals(rows, "area"), by, "measure", "area")
    return _in_order(grid)[["condition", "ablation", "checkpoint", "circuit", CPR, CMD]]


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The base model's rows before those of the checkpoints, within a condition and ablation."""
    order = checkpoint_order(table["checkpoint"])
    before = [name for name in ("condition", "ablation") if name in table]
    ordered = table.assign(place=table["checkpoint"].map(order.index))
    return ordered.sort_values([*before, "place"], kind="stable").drop(columns="place")


def _transfer(transfer: pd.DataFrame, checkpoints: Sequence[str]) -> pd.DataFrame:
    if transfer.empty:
        return transfer
    texts = transfer.assign(f=[number(value) for value in transfer["mean"]])
    grid = _spread(texts, ["condition", "circuit_from"], "model", "f")
    grid = grid.rename(columns={"circuit_from": "checkpoint"})
    columns = ["condition", "checkpoint", *(name for name in checkpoints if name in grid)]
    return _in_order(grid)[columns].rename(columns={"checkpoint": "circuit of"})


def _baselines(baselines: pd.DataFrame) -> pd.DataFrame:
    if baselines.empty:
        return baselines
    rows = baselines[baselines["given"].isin([NOTHING, CHECKPOINT_TOO])]
    texts = _with_intervals(rows.rename(columns={"correlation": "mean"}), "rank correlation")
    return texts.assign(
        outcome=rows["outcome"].str.replace("_", " "),
        predictor=rows["predictor"].str.replace("_", " "),
    )
