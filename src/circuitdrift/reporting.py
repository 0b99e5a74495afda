"""The report: findings drawn from the tables, and the page that states them.

Sentences live in ``templates/report.md.j2``; this file computes what they say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from circuitdrift import markdown
from circuitdrift.baselines import ALL_OTHERS, CHECKPOINT_TOO, DRIFT
from circuitdrift.claims import Findings, claims_table
from circuitdrift.figures.baselines import OUTCOME_NAMES
from circuitdrift.headlines import headline_means, limits, records_where, recruited_counts
from circuitdrift.identifiers import BASE, TRAINED, Run
from circuitdrift.report_tables import report_tables
from circuitdrift.summaries.drift import middle_threshold
from circuitdrift.summaries.grids import MAPPED, SHUFFLED, TASK, focus_condition
from circuitdrift.summaries.interventions import RECRUITED, SMALLEST_DIFFERENCE
from circuitdrift.summaries.mapping import BETWEEN
from circuitdrift.summaries.mapping import DRIFT as DRIFT_FROM_BASE
from circuitdrift.summaries.study import StudyTables, Summaries
from circuitdrift.verdicts import Verdict, as_json, circuits_differ, mappings_taught

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Answers:
    """The verdicts on the research questions, and the original study's claims beside them."""

    differ: Verdict
    taught: Verdict
    claims: pd.DataFrame


def answer(params: Params, tables: StudyTables, summaries: Summaries) -> Answers:
    checkpoints = params.train.checkpoint_names
    last = checkpoints[-1]
    focus = focus_condition(params.runs.conditions)
    n_recruited = int((tables.recruited["direction"] == RECRUITED).sum())
    differ = circuits_differ(
        summaries.mapping, summaries.patching, n_recruited, last, params.verdicts
    )
    taught = mappings_taught(summaries.mapping, last, params.verdicts)
    losses = summaries.checkpoint_loss.pivot_table(index="run", columns="checkpoint", values="loss")
    means = headline_means(tables.headlines)
    drift = summaries.drift
    findings = Findings(
        losses=losses[[Run.parse(run).condition == focus for run in losses.index]],
        headlines=means[means["condition"].isin([BASE, focus])].set_index("checkpoint"),
        drift=drift[(drift["condition"] == focus) & (drift["prompts"] == TASK)].set_index(
            "checkpoint"
        )["mean"],
        checkpoints=checkpoints,
        n_circuits=_n_circuits(tables.drift),
        n_examples=params.dataset.n_examples,
        total_steps=int(summaries.loss["step"].max()),
        differ=differ,
        taught=taught,
    )
    return Answers(differ, taught, claims_table(tables.original, findings))


def render_report(
    params: Params,
    tables: StudyTables,
    summaries: Summaries,
    answers: Answers,
    figures: Sequence[str],
) -> str:
    """The report as Markdown.

    Args:
        figures: the names of those that were drawn.
    """
    checkpoints = list(params.train.checkpoint_names)
    threshold = middle_threshold(params.compare.thresholds)
    return (
        _environment()
        .get_template("report.md.j2")
        .render(
            study=_study(params, tables, summaries),
            verdicts=[answers.differ, answers.taught],
            limits=limits(params, tables),
            last=checkpoints[-1],
            mapping_last=_mapping_at(summaries, checkpoints[-1]),
            place=_extremes(summaries),
            recruited=recruited_counts(tables.recruited),
            positive=_positive_control(tables.positive_control),
            undefined=_undefined(summaries),
            drift_adds=_drift_adds(summaries.baselines),
            settings={
                "smallest_difference": SMALLEST_DIFFERENCE,
                "threshold": threshold,
                "fdr": params.compare.fdr,
                "min_effect": params.compare.min_effect,
                "min_agreement": params.compare.min_agreement,
                "transfer_size": params.validation.transfer_size,
                "validated": params.validation.conditions,
            },
            original=tables.original,
            tables={
                **report_tables(tables, summaries, checkpoints, threshold),
                "claims": markdown.markdown(answers.claims),
            },
            figures=set(figures),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # the page is Markdown, not HTML
    )
    environment.filters |= {
        "percent": markdown.percent,
        "number": markdown.number,
        "interval": markdown.interval,
        "p": markdown.p_text,
        "p_value": markdown.p_value,
    }
    return environment


def verdict_metrics(params: Params, tables: StudyTables, answers: Answers) -> dict[str, Any]:
    """For metrics/verdicts.json."""
    return {
        "rq1": as_json(answers.differ),
        "rq2": {**as_json(answers.taught), "limits": limits(params, tables)},
    }


def _study(params: Params, tables: StudyTables, summaries: Summaries) -> dict[str, Any]:
    prompts = tables.drift.drop_duplicates("prompt")
    by_role = prompts["role"].value_counts()
    from_base = tables.drift[tables.drift["from"] == BASE]
    n_runs = min(
        (sum(run.condition == name for run in params.runs.all) for name in (MAPPED, SHUFFLED)),
    )
    return {
        "model": params.base.model,
        "runs": [run.name for run in params.runs.all],
        "conditions": params.runs.conditions,
        "n_seeds": len(params.runs.seeds),
        "n_examples": params.dataset.n_examples,
        "total_steps": int(summaries.loss["step"].max()),
        "checkpoints": [f"{100 * fraction:g}" for fraction in params.train.checkpoints],
        "loss_on": params.train.loss_on,
        "n_words": int(prompts["word"].dropna().nunique()),
        "n_prompts": {
            role: int(by_role.get(role, 0)) for role in ("discovery", "evaluation", "control")
        },
        "n_circuits": _n_circuits(tables.drift),
        "n_graph_prompts": int(from_base.dropna(subset=["influence_drift"])["prompt"].nunique()),
        "random_adapters": bool((tables.drift["change"] != TRAINED).any()),
        "confidence": params.statistics.confidence,
        "n_runs": n_runs,
        "smallest_p": 2 / math.comb(2 * n_runs, n_runs) if n_runs > 1 else None,
    }


def _n_circuits(drift: pd.DataFrame) -> int:
    """Of the base model's prompts, and of each prompt under each trained or random adapter."""
    return int(drift["prompt"].nunique() + (drift["from"] == BASE).sum())


def _mapping_at(summaries: Summaries, checkpoint: str) -> dict[str, Any]:
    """The rows on task prompts of what `mapped` has beyond `shuffled`, None where not measured."""
    rows = {
        name: records_where(summaries.mapping, measure=measure, checkpoint=checkpoint, prompts=TASK)
        for name, measure in (("drift", DRIFT_FROM_BASE), ("between", BETWEEN))
    }
    return {name: found[0] if found else None for name, found in rows.items()}


def _drift_adds(baselines: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether drift adds to all the cheap measures, by outcome; none without an interval."""
    rows = baselines.dropna(subset=["low", "high"])
    rows = rows.assign(mean=rows["correlation"], outcome=rows["outcome"].map(OUTCOME_NAMES))
    return [
        row
        for given in (ALL_OTHERS, CHECKPOINT_TOO)
        for row in records_where(rows, predictor=DRIFT, given=given)
    ]


def _extremes(summaries: Summaries) -> dict[str, Any]:
    """Where most was gained, most was lost, and most moved in `mapped` beyond `shuffled`."""
    change, beyond = summaries.change, summaries.mapping_by_place
    return {
        **{name: change.nlargest(1, name).iloc[0].to_dict() for name in ("gained", "lost")},
        "mapping": None if beyond.empty else beyond.nlargest(1, "mean").iloc[0].to_dict(),
    }


def _positive_control(table: pd.DataFrame) -> dict[str, int]:
    return {"found": int((table["rank"] == 1).sum()), "n": len(table)}


def _undefined(summaries: Summaries) -> Mapping[str, bool]:
    """Which of the summaries have a share of a change that is next to nothing."""
    named = {
        "faithfulness": summaries.faithfulness,
        "transfer": summaries.transfer,
        "patching": summaries.patching,
    }
    return {name: bool(table["mean"].isna().any()) for name, table in named.items()}
