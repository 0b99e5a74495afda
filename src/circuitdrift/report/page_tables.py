"""The tables of the report's page, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from circuitdrift.core.study import BASE
from circuitdrift.report.faithfulness import CURVE, WORD, areas, by_word, falls, over_words
from circuitdrift.report.figures import NODES
from circuitdrift.report.style import checkpoint, interval, literal, p_value, percent
from circuitdrift.report.summaries import Study, where

NODES_PER_WORD = 3
MEASURES = {
    "accuracy": "choice accuracy, near",
    "far_accuracy": "choice accuracy, far",
    "reverse_accuracy": "word found by its meaning",
    "p": "probability of the answer",
    "frame": "frame, trained words",
    "frame_unseen": "frame, never-trained words",
    "choice": "choice",
    "discrimination": "discrimination",
    "substitution": "substitution",
    "drift": "drift from base, near",
    "drift_control": "drift from base, control",
    "gain": "gain, near",
    "control_loss": "loss on control texts",
}
_GRAPHS = {
    "node_jaccard": "nodes",
    "edge_jaccard": "edges",
    "replacement_to": "replacement",
    "completeness_to": "completeness",
}


def page_tables(study: Study) -> dict[str, pd.DataFrame]:
    """Every table of the page by the name that the template gives it."""
    tables = study.tables
    steps = _checkpoints(_with_interval(tables["steps"], "estimate", "step ratio"))
    return {
        "examples": _examples(study),
        **{question: _criteria(tables["criteria"], question) for question in ("RQ1", "RQ2")},
        **{f"beside_{name}": _beside(tables["comparisons"], name) for name in ("RQ1", "RQ2")},
        "RQ3": _rq3(tables["rq3"]),
        "by_condition": _by_condition(study),
        "words": _words(tables["words"]),
        "steps": steps[["from", "to", "step ratio", "p"]],
        "between": _spread(_checkpoints(tables["between"]), ["what", "role"], "checkpoint", "mean"),
        "closed": _closed(tables["closed"]),
        "coverage": _coverage(study),
        **_faithfulness(study),
        "transfer": _checkpoints(_with_interval(transfer(study), "mean", "faithfulness"))[
            ["circuit_from", "model", "faithfulness", "n_words"]
        ].set_axis(["circuit of", "in the model of", "faithfulness", "words"], axis=1),
        "specificity": _with_interval(specificity(study), "fall", "fall")[
            ["circuit", "prompts", "fall", "n_words"]
        ].rename(columns={"n_words": "units"}),
        "graphs": _graphs(tables["graphs"]),
        "contrast": _contrast(tables["contrast"]),
        "contrast_counts": tables.get("contrast_counts", pd.DataFrame()).rename(
            columns={"n_tested": "tested", "n_pass": "passing"}
        ),
        "loss": _spread(
            _checkpoints(tables["checkpoint_loss"]), ["checkpoint"], "condition", "loss"
        ),
        "original": _original(study.original),
    }


def _rq3(parts: pd.DataFrame) -> pd.DataFrame:
    if parts.empty:
        return parts
    table = _with_interval(parts, "value", "estimate").rename(columns={"number": "criterion"})
    return table[["criterion", "part", "estimate", "least", "most", "outcome"]]


def transfer(study: Study) -> pd.DataFrame:
    """circuit_from, model, mean, low, high, n_words: faithfulness over words."""
    models = ["circuit_from", "model"]
    of_words = by_word(study.tables["transfer"], models)
    return over_words(of_words, models, "f", study.params)


def specificity(study: Study) -> pd.DataFrame:
    """circuit, prompts, fall, low, high, n_words: fall of the target over units, in logits."""
    units = falls(study.tables["specificity"])
    rows = over_words(units, ["circuit", "prompts"], "fall", study.params)
    return rows.rename(columns={"mean": "fall"})


def _checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """``025`` as ``25 %`` in every column that names checkpoints."""
    columns = table.columns.intersection(["checkpoint", "from", "to", "circuit_from", "model"])
    return table.assign(**{name: table[name].map(checkpoint) for name in columns})


def _with_interval(table: pd.DataFrame, value: str, name: str) -> pd.DataFrame:
    """A column ``name`` with ``value``, low and high as text."""
    rows = table[[value, "low", "high"]].astype(float).to_dict("records")
    return table.assign(
        **{name: pd.Series([interval(row, value) for row in rows], table.index, str)}
    )


def _spread(table: pd.DataFrame, index: list[str], columns: str, values: str) -> pd.DataFrame:
    """One row for each value of ``index``, one column for each of ``columns``, in their order."""
    means = table.groupby([*index, columns], sort=False)[values]
    values_in_order = (
        means.mean() if pd.api.types.is_numeric_dtype(table[values]) else means.first()
    )
    grid = values_in_order.unstack(columns, sort=False)
    return grid.reset_index()


def _examples(study: Study) -> pd.DataFrame:
    """The words with what the base model makes of them."""
    base = where(study.tables["by_word"], checkpoint=BASE)
    table = study.tables["examples"].rename(columns={"training": "a training sentence"})
    for measure, name in (("p", "p"), ("accuracy", "chosen")):
        values = where(base, measure=measure)[[*WORD, "mean"]].rename(columns={"mean": name})
        table = table.merge(values, how="left", on=WORD)
    table = table.assign(chosen=table["chosen"].map(percent))
    return table[[*WORD, "meaning", "p", "chosen", "a training sentence", "prompt"]]


def _criteria(criteria: pd.DataFrame, question: str) -> pd.DataFrame:
    rows = _with_interval(where(criteria, question=question), "estimate", "estimate")
    reasons = rows["reason"].fillna("")
    names = {"threshold": "at least", "bound": "above", "p_holm": "Holm", "n_words": "words"}
    return rows.assign(
        criterion=rows["number"].astype(str) + " " + rows["name"],
        p=rows["p"].map(p_value),
        p_holm=rows["p_holm"].map(p_value),
        n_words=rows["n_words"].astype("Int64"),  # whole beside criteria without a number
        outcome=rows["outcome"] + (": " + reasons).where(reasons != "", ""),
    ).rename(columns=names)[["criterion", "estimate", *names.values(), "p", "outcome"]]


def _beside(comparisons: pd.DataFrame, question: str) -> pd.DataFrame:
    rows = _with_interval(where(comparisons, question=question), "estimate", "estimate")
    names = {"number": "criterion", "name": "beside it", "n_units": "units"}
    rows = rows.assign(p=rows["p"].map(p_value)).rename(columns=names)
    return rows[["criterion", "beside it", "estimate", "p", "units"]]


def _by_condition(study: Study) -> pd.DataFrame:
    rows = study.tables["by_condition"]
    rows = rows[rows["checkpoint"].isin([BASE, study.last]) & rows["measure"].isin(list(MEASURES))]
    rows = _with_interval(rows, "mean", "text")
    grid = rows.pivot_table(index="measure", columns="condition", values="text", aggfunc="first")
    grid = grid.reindex(index=list(MEASURES), columns=[BASE, *study.conditions])
    return grid.rename(index=MEASURES).reset_index()


def _words(words: pd.DataFrame) -> pd.DataFrame:
    values = words["value"].map("{:.3f}".format).astype(str)
    rows = words.assign(
        criterion=words["question"] + "." + words["number"].astype(str),
        text=values.where(words["left_out"].fillna("") == "", words["left_out"]),
    )
    return _spread(rows, WORD, "criterion", "text")


def _closed(closed: pd.DataFrame) -> pd.DataFrame:
    rows = _with_interval(where(closed, word=""), "value", "text")
    rows = rows.assign(nodes=rows["nodes"].map(NODES)).rename(columns={"k": "neurons a word"})
    return _spread(rows, ["neurons a word"], "nodes", "text")


def _coverage(study: Study) -> pd.DataFrame:
    coverage = study.tables["coverage"]
    names = {"n_words": "units", "mean_at": "mean at"}
    rows = coverage.assign(
        criterion=coverage["question"] + "." + coverage["number"].astype(str),
        of=coverage["name"].replace(
            {name: checkpoint(name) for name in study.checkpoints}, regex=True
        ),
    ).rename(columns=names)
    return rows[["criterion", "of", "kind", "units", "mean at", "coverage", "printed"]]


def _faithfulness(study: Study) -> dict[str, pd.DataFrame]:
    """Areas over words; what each word's own circuit comes to, and the size of a random one."""
    of_words = areas(by_word(study.tables["faithfulness"], [*CURVE, "size"]))
    cpr, cmd = (over_words(of_words, CURVE, name, study.params) for name in ("cpr", "cmd"))
    means = _with_interval(cpr, "mean", "CPR").assign(CMD=_with_interval(cmd, "mean", "CMD")["CMD"])
    sizes = (100 * of_words["smallest"]).map("{:g}".format).replace("nan", "-")
    of_words = of_words.assign(smallest=sizes).rename(columns={"cpr": "CPR", "cmd": "CMD"})
    keys = ["model", "ablation", *WORD]
    own, random = (where(of_words, circuit=name) for name in ("own", "random"))
    words = own.merge(random[[*keys, "smallest"]], how="left", on=keys, suffixes=("", ", random"))
    return {
        "areas": _checkpoints(means)[[*CURVE, "CPR", "CMD", "n_words"]].rename(
            columns={"n_words": "words"}
        ),
        "faithfulness": _checkpoints(words).drop(columns="circuit"),
    }


def _graphs(graphs: pd.DataFrame) -> pd.DataFrame:
    """How much of the base model's graphs is left, by condition and checkpoint."""
    rows = _checkpoints(where(graphs, **{"from": BASE})).rename(columns={"to": "checkpoint"})
    by = ["condition", "role", "checkpoint"]
    rows = rows.reindex(columns=[*by, *_GRAPHS])  # without graphs the measures have no columns
    means = rows.groupby(by, as_index=False, sort=False)[list(_GRAPHS)].mean()
    return means.rename(columns=_GRAPHS)


def _contrast(contrast: pd.DataFrame) -> pd.DataFrame:
    """The strongest few of each word."""
    order = contrast.assign(size=contrast["contrast"].abs()).sort_values(
        [*WORD, "size"], ascending=[True, True, False], kind="stable"
    )
    top = order.groupby(WORD, sort=False).head(NODES_PER_WORD)
    layers, neurons = (top[name].astype(str) for name in ("layer", "neuron"))
    names = {"size_base": "size in base", "size_runs": "size in runs", "role": "token"}
    shown = top.assign(
        neuron="L" + layers + "/N" + neurons,
        q=top["q"].map(p_value),
        promotes=top["promotes"].map(literal),
        suppresses=top["suppresses"].map(literal),
    ).rename(columns=names)
    columns = ["neuron", "token", "kind", "contrast", "size in base", "size in runs", "q"]
    return shown[[*WORD, *columns, "promotes", "suppresses"]]


def _original(original: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "run": name,
            "examples": run["n_examples"],
            "batch": run["batch_size"],
            "learning rate": f"{run['learning_rate']:g}",
            "steps": run["steps"],
            "losses": " → ".join(map(str, run["losses"])),
        }
        for name, run in original["runs"].items()
    ]
    return pd.DataFrame(rows)
