"""The report's page: the numbers that its sentences state, beside its tables.

The sentences stand in ``report.md.j2`` and ``claims.j2``, the tables in ``page_tables.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from circuitdrift.core.study import ASSIGNED, BASE
from circuitdrift.report.faithfulness import CURVE, by_word, left_out
from circuitdrift.report.figures import random_drift, run_pairs
from circuitdrift.report.page_tables import page_tables, specificity, transfer
from circuitdrift.report.style import MISSING, checkpoint, interval, markdown, page_template
from circuitdrift.report.summaries import Study, where
from circuitdrift.report.verdicts import rq3

PAGE = Path(__file__).with_name("report.md.j2")


def render_report(study: Study, verdicts: Mapping[str, str], figures: Sequence[str]) -> str:
    """The report as Markdown.

    Args:
        verdicts: RQ1 and RQ2 in words, what each criterion says in brackets behind.
        figures: the names of those that were drawn.
    """
    tables, conditions = study.tables, study.conditions
    criteria = _records(tables["criteria"])
    focus = "mapped" if "mapped" in conditions else conditions[0]
    band = where(run_pairs(study, "near"), checkpoint=study.last)["drift"]
    losses = where(tables["checkpoint_loss"], condition=focus).groupby("checkpoint")["loss"].mean()
    apart = where(tables["between"], checkpoint=study.last, role="near", what="one assignment")
    carried = transfer(study)
    kinds = [kind for kind, _ in study.words]

    def mean(measure: str, condition: str) -> float | None:
        """Of a condition after training, of the base model; None for what was not measured."""
        at = BASE if condition == BASE else study.last
        rows = tables["by_condition"]
        return _first(where(rows, measure=measure, condition=condition, checkpoint=at)["mean"])

    return page_template(PAGE).render(
        params=study.params,
        original=study.original,
        verdicts=verdicts,
        criteria={
            question: {row["number"]: row for row in criteria if row["question"] == question}
            for question in ("RQ1", "RQ2")
        },
        all_criteria=criteria,
        beside=_Beside(
            (row["name"], interval(row, "estimate")) for row in _records(tables["comparisons"])
        ),
        figures=set(figures),
        tables={name: markdown(table) for name, table in page_tables(study).items()},
        checkpoints=[checkpoint(name) for name in study.checkpoints],
        last=checkpoint(study.last),
        total_steps=study.total_steps,
        conditions=conditions,
        focus=focus,
        words=study.words,
        kinds=sorted(set(kinds)),
        # By guessing among the meanings of a word's type.
        guess=sum(1 / kinds.count(kind) for kind in kinds) / len(kinds),
        mean=mean,
        random_drift=_first(random_drift(study)[["mean"]].mean().dropna()),
        band=(band.min(), band.max()) if len(band) else None,
        distance=_first(apart["mean"]),
        rq3=rq3(tables["rq3"]) if len(tables["rq3"]) else {},
        rq3_parts=_records(tables["rq3"]),
        sweep=defaultdict(dict, _sweep_means(tables["sweep"])),
        first_loss=losses[study.checkpoints[0]],
        last_loss=losses[study.last],
        steps=_records(tables["steps"]),
        by_type=_by_type(tables["words"]),
        closed_without=_without(tables["closed"]),
        faithfulness_without=left_out(by_word(tables["faithfulness"], [*CURVE, "size"])),
        untransferred=_records(carried[(carried["low"] <= 0) & (carried["high"] >= 0)]),
        unspecific=_unspecific(specificity(study)),
    )


class _Beside(dict[str, str]):
    """What stands beside a criterion, by name; a dash for what was not measured."""

    def __missing__(self, name: str) -> str:
        return MISSING


def _first(values: pd.Series) -> float | None:
    return float(values.iloc[0]) if len(values) else None


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows whose missing texts are empty, so that a template can ask for them."""
    texts = table.select_dtypes(exclude="number")
    rows = table.assign(**{str(name): texts[name].fillna("") for name in texts})
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _sweep_means(measures: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By experiment and measure, mean over the words and runs of all assignments."""
    if measures.empty:
        return {}
    taught = measures[measures["condition"].isin(list(ASSIGNED))]
    means = taught.groupby(["experiment", "measure"])["value"].mean().unstack()
    return {str(name): row.to_dict() for name, row in means.iterrows()}


def _by_type(words: pd.DataFrame) -> list[dict[str, Any]]:
    """type, accuracy, substitution: of RQ2.1 and RQ2.3, mean over the words of a type."""
    rows = where(words, question="RQ2")
    means = rows.pivot_table(index="type", columns="number", values="value").reindex(columns=[1, 3])
    named = means.set_axis(["accuracy", "substitution"], axis=1).dropna().reset_index()
    return _records(named)


def _without(closed: pd.DataFrame) -> list[str]:
    """``type/word`` of those that were left out."""
    rows = closed[closed["left_out"].fillna("") != ""]
    return sorted({f"{kind}/{word}" for kind, word in zip(rows["type"], rows["word"], strict=True)})


def _unspecific(falls: pd.DataFrame) -> list[dict[str, Any]]:
    """Where a type's circuit lowers other prompts' targets as much as its own, or more."""
    own = falls[falls["circuit"] == falls["prompts"]].set_index("circuit")["fall"]
    others = falls[falls["circuit"].isin(own.index) & (falls["circuit"] != falls["prompts"])]
    others = others.assign(own=others["circuit"].map(own).astype(float))
    return _records(others[others["fall"] >= others["own"]])
