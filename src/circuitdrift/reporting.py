"""The report: findings drawn from the tables, and the page that states them.

Sentences live in ``templates/report.md.j2``; this file computes what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from circuitdrift.config import Params
from circuitdrift.identifiers import BASE
from circuitdrift.report_tables import Evidence, report_tables
from circuitdrift.statistics import Interval, bootstrap_difference
from circuitdrift.summaries import CONTROL, TASK

_TEMPLATES = Path(__file__).parent / "templates"


def render_report(params: Params, evidence: Evidence, total_steps: int) -> str:
    """The report as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the page is Markdown, not HTML
    )
    environment.filters |= {"percent": _percent, "three": _three, "interval": _interval}
    checkpoints = list(params.train.checkpoint_names)
    return environment.get_template("report.md.j2").render(
        study=_study(params, evidence, total_steps),
        runs=[_run(run.name, checkpoints, evidence) for run in params.runs.all],
        drift_final=_rows_at(evidence.drift_summary, checkpoints[-1]),
        gaps={
            condition: _task_control_gap(params, evidence.drift, condition, checkpoints[-1])
            for condition in params.runs.conditions
        },
        place={
            measure: evidence.change.nlargest(1, measure).iloc[0].to_dict()
            for measure in ("gained", "lost")
        },
        original={
            **evidence.original,
            "losses": [entry["loss"] for entry in evidence.original["losses"]],
        },
        tables=report_tables(evidence, checkpoints),
    )


def study_metrics(params: Params, evidence: Evidence) -> dict[str, float]:
    """The few numbers that experiments are compared by, means over the runs of a condition.

    Of the condition ``mapped`` where it was run, else of the first.
    """
    conditions = params.runs.conditions
    condition = "mapped" if "mapped" in conditions else conditions[0]
    runs = [run.name for run in params.runs.all if run.condition == condition]
    last = params.train.checkpoint_names[-1]
    final = pd.DataFrame([evidence.headlines[run][last] for run in runs]).mean()
    base = pd.DataFrame([evidence.headlines[run][BASE] for run in runs]).mean()
    drift = evidence.drift_summary[
        (evidence.drift_summary["checkpoint"] == last)
        & (evidence.drift_summary["condition"] == condition)
    ].set_index("prompts")["mean"]
    loss = evidence.checkpoint_loss
    last_loss = loss[(loss["checkpoint"] == last) & loss["run"].isin(runs)]["loss"].mean()
    metrics = {
        "accuracy": final["accuracy"],
        "p_answer": final["p"],
        "loss": last_loss,
        "drift_task": drift[TASK],
        "drift_control": drift[CONTROL],
        "forgetting": final["control_loss"] - base["control_loss"],
    }
    return {name: round(float(value), 4) for name, value in metrics.items()}


def _study(params: Params, evidence: Evidence, total_steps: int) -> dict[str, Any]:
    prompts = evidence.drift.drop_duplicates("prompt")
    n_task, n_control = (int((prompts["role"] == role).sum()) for role in ("discovery", "control"))
    n_models = 1 + len(params.runs.all) * len(params.train.checkpoints)
    return {
        "model": params.base.model,
        "runs": [run.name for run in params.runs.all],
        "conditions": params.runs.conditions,
        "seeds": params.runs.seeds,
        "n_examples": params.dataset.n_examples,
        "total_steps": total_steps,
        "checkpoints": [f"{100 * fraction:g}" for fraction in params.train.checkpoints],
        "loss_on": params.train.loss_on,
        "feature_nodes": params.attribution.feature_nodes,
        "n_task": n_task,
        "n_control": n_control,
        "n_graphs": n_models * (n_task + n_control),
        "confidence": params.report.confidence,
    }


def _run(name: str, checkpoints: Sequence[str], evidence: Evidence) -> dict[str, Any]:
    headline = evidence.headlines[name]
    losses = evidence.checkpoint_loss
    course = losses[losses["run"] == name].set_index("checkpoint")["loss"].loc[list(checkpoints)]
    drift = evidence.drift
    task = drift[(drift["run"] == name) & (drift["from"] == BASE) & (drift["role"] == "discovery")]
    return {
        "name": name,
        **{
            measure: {"base": headline[BASE][measure], "final": headline[checkpoints[-1]][measure]}
            for measure in ("accuracy", "top1", "p", "false_positive")
        },
        "loss": {"first": course.iloc[0], "last": course.iloc[-1], "course": list(course)},
        "task_drift": list(task.groupby("to")["drift"].mean().loc[list(checkpoints)]),
    }


def _task_control_gap(
    params: Params, drift: pd.DataFrame, condition: str, checkpoint: str
) -> Interval:
    """Mean drift of task prompts minus that of control prompts, base to ``checkpoint``."""
    rows = drift[
        (drift["from"] == BASE) & (drift["to"] == checkpoint) & (drift["condition"] == condition)
    ]
    per_prompt = rows.groupby(["role", "prompt"])["drift"].mean()
    settings = params.report
    return bootstrap_difference(
        per_prompt["discovery"].to_numpy(),
        per_prompt["control"].to_numpy(),
        settings.confidence,
        settings.bootstrap_samples,
        settings.seed,
    )


def _rows_at(table: pd.DataFrame, checkpoint: str) -> list[dict[str, Any]]:
    return table[table["checkpoint"] == checkpoint].to_dict("records")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _interval(value: Interval | Mapping[str, float]) -> str:
    fields = value if isinstance(value, Mapping) else vars(value)
    return f"{fields['mean']:.3f} [{fields['low']:.3f}, {fields['high']:.3f}]"
