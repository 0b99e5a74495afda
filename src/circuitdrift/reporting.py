"""The report: findings drawn from the tables, and the page that states them.

Sentences live in ``templates/report.md.j2``; this file computes what they say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from circuitdrift.config import Params
from circuitdrift.identifiers import BASE
from circuitdrift.statistics import Interval, bootstrap_difference
from circuitdrift.summaries import CONTROL, TASK, checkpoint_order

_TEMPLATES = Path(__file__).parent / "templates"


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
        tables=_tables(evidence, checkpoints),
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


def _tables(evidence: Evidence, checkpoints: Sequence[str]) -> dict[str, str]:
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
    names = [f"{round(100 * fraction):03d}" for fraction in original["fraction"]]
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


def _rows_at(table: pd.DataFrame, checkpoint: str) -> list[dict[str, Any]]:
    return table[table["checkpoint"] == checkpoint].to_dict("records")


def _markdown(table: pd.DataFrame) -> str:
    return str(table.to_markdown(index=False, floatfmt=".3f"))


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _interval(value: Interval | Mapping[str, float]) -> str:
    fields = value if isinstance(value, Mapping) else vars(value)
    return f"{fields['mean']:.3f} [{fields['low']:.3f}, {fields['high']:.3f}]"
