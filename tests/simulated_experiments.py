"""What a simulated study leaves for the comparison of experiments: as tables, and as files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from circuitdrift import paths
from circuitdrift.artifacts import write_json, write_table
from circuitdrift.headlines import study_metrics
from circuitdrift.scaling.tables import ExperimentTables
from study_plans import Plan
from study_tables import study_params, study_summaries, study_tables


def moved_table(plan: Plan) -> pd.DataFrame:
    """Trained: 10 grown and 4 shrunk, one more each seed; random: 2 and 1."""
    return pd.DataFrame(
        [
            {
                "run": run.name,
                "condition": run.condition,
                "seed": run.seed,
                "change": change,
                "n_tested": 1000,
                "n_grown": 2 if change == "random-0" else 10 + run.seed,
                "n_shrunk": 1 if change == "random-0" else 4 + run.seed,
            }
            for run in plan.runs
            for change in ("trained", "random-0")[: 1 + plan.random_adapters]
        ]
    )


def experiment_tables(plan: Plan) -> ExperimentTables:
    tables, summaries = study_tables(plan), study_summaries(plan)
    return ExperimentTables(
        evaluation=_with_other_roles(tables.evaluation),
        loss=summaries.loss,
        drift=tables.drift,
        moved=moved_table(plan),
        overlap=tables.overlap,
        drift_summary=summaries.drift,
        mapping=summaries.mapping,
        faithfulness=summaries.faithfulness,
        metrics=study_metrics(study_params(plan), tables, summaries),
    )


def _with_other_roles(evaluation: pd.DataFrame) -> pd.DataFrame:
    """With a word that training never showed and a plain text, at each checkpoint of each run."""
    models = evaluation[["run", "condition", "seed", "checkpoint", "step"]].drop_duplicates()
    unseen = models.assign(prompt="unseen-0", role="unseen", false_positive=0.25)
    control = models.assign(prompt="control-0", role="control", loss=3.0)
    return pd.concat([evaluation, unseen, control], ignore_index=True)


def write_tables(root: Path, plan: Plan) -> None:
    """The files that the comparison reads, as the stages leave them."""
    tables = experiment_tables(plan)
    evaluation = tables.evaluation
    base = evaluation[evaluation["checkpoint"] == "base"]
    of_base = base[base["run"] == plan.runs[0].name].assign(run="base", condition="base", seed=0)
    write_table(root / paths.evaluation_table("base"), of_base)
    for run in plan.runs:
        rows = evaluation[(evaluation["run"] == run.name) & (evaluation["checkpoint"] != "base")]
        write_table(root / paths.evaluation_table(run.name), rows)
    for path, table in (
        (paths.LOSS_TABLE, tables.loss),
        (paths.DRIFT_TABLE, tables.drift),
        (paths.MOVED_FEATURE_TABLE, tables.moved),
        (paths.DRIFT_SUMMARY_TABLE, tables.drift_summary),
        (paths.MAPPING_TABLE, tables.mapping),
        (paths.OVERLAP_TABLE, tables.overlap),
        (paths.FAITHFULNESS_SUMMARY_TABLE, tables.faithfulness),
    ):
        write_table(root / path, table)
    write_json(root / paths.STUDY_METRICS, tables.metrics)
