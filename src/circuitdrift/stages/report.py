"""Stage ``report``: the tables over all runs, the figures, the metrics and the page."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift.core import paths
from circuitdrift.core.files import (
    read_json,
    remove_other_runs,
    replacing,
    write_json,
    write_table,
    write_text,
)
from circuitdrift.core.study import BASE, Run
from circuitdrift.core.yaml import read_yaml
from circuitdrift.report.baselines import baseline_table, compare_baselines
from circuitdrift.report.faithfulness import (
    faithfulness_summary,
    patching_summary,
    specificity_summary,
    transfer_summary,
)
from circuitdrift.report.figures import draw
from circuitdrift.report.mapping import mapping
from circuitdrift.report.page import render_report
from circuitdrift.report.style import use_style
from circuitdrift.report.summaries import (
    Study,
    change_map,
    drift_summary,
    headline_means,
    loss_at_checkpoints,
    loss_by_step,
    mapping_by_place,
    overlap_summary,
    under_each_run,
    where,
    with_interval,
)
from circuitdrift.report.verdicts import (
    circuits_differ,
    claims_table,
    mappings_taught,
    study_metrics,
    verdict_metrics,
)

if TYPE_CHECKING:
    from circuitdrift.params import Params

# What pandas would read as numbers or as nothing, but are names.
_NAMES = dict.fromkeys(
    (
        *("run", "run_a", "run_b", "condition", "prompt", "role", "type", "word"),
        *("from", "to", "checkpoint", "circuit_from", "model", "circuit", "nodes", "prompts"),
        *("segment", "name", "direction", "comparison", "ablation", "promotes", "suppresses"),
    ),
    str,
)
# The tables of a run's interventions, with the columns that stand for one where none was made.
INTERVENTIONS = {
    "faithfulness": ["checkpoint", "ablation", "circuit", "size", "value", "full", "empty"],
    "transfer": ["circuit_from", "model", "value", "full", "empty"],
    "patching": ["direction", "nodes", "n_nodes", "base", "tuned", "patched"],
    "specificity": ["circuit", "prompts", "full", "ablated"],
    "ablation_rank": ["checkpoint", "n_nodes", "spearman"],
}
WRITTEN = (
    *("evaluation", *INTERVENTIONS, "loss", "understanding", "drift_summary"),
    *("mapping", "mapping_by_place", "overlap_summary", "faithfulness_summary"),
    *("transfer_summary", "patching_summary", "specificity_summary", "ablation_rank_summary"),
    *("baselines", "claims"),
)


def run(params: Params) -> None:
    plt.switch_backend("agg")
    use_style()
    _remove_other_runs(params)
    study = summarise(Study(params, _read_tables(params), read_yaml(paths.ORIGINAL_STUDY)))
    differ, taught = circuits_differ(study), mappings_taught(study)
    claims = claims_table(study, differ, taught)
    study = replace(study, tables={**study.tables, "claims": claims})
    with replacing(paths.REPORT_TABLES) as directory:
        for name in WRITTEN:
            write_table(directory / f"{name}.csv", study.tables[name])
    with replacing(paths.METRICS) as directory:
        write_json(directory / paths.STUDY_METRICS.name, study_metrics(study))
        write_json(directory / paths.VERDICTS.name, verdict_metrics(study, differ, taught))
    figures = draw(study)
    with replacing(paths.FIGURES) as directory:
        directory.mkdir()
        for name, figure in figures.items():
            save(figure, directory / f"{name}.png")
    write_text(paths.REPORT, render_report(study, [differ, taught], list(figures)))


def save(figure: Figure, file: Path | IO[bytes]) -> None:
    # matplotlib writes its version into a PNG unless told not to.
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _remove_other_runs(params: Params) -> None:
    """What is left of runs, or of interventions in runs, that params.yaml no longer names."""
    remove_other_runs(paths.RUNS, params.runs.all)
    for run in params.runs.all:
        if run.condition not in params.intervene.conditions:
            shutil.rmtree(paths.interventions(run.name), ignore_errors=True)


def _read_tables(params: Params) -> dict[str, pd.DataFrame]:
    """The tables of the stages before, by name, those of each run over all runs."""
    runs = params.runs.all
    conditions = {BASE: BASE, **{run.name: run.condition for run in runs}}
    headlines = [
        {"run": run, "condition": condition, "checkpoint": checkpoint, **numbers}
        for run, condition in conditions.items()
        for checkpoint, numbers in read_json(paths.evaluation_metrics(run)).items()
    ]
    logs = {run.name: pd.read_csv(paths.training_loss(run.name), sep="\t") for run in runs}
    answers = pd.concat([_read(paths.evaluation_table(run.name)) for run in runs])
    return {
        "headlines": headline_means(pd.DataFrame(headlines)),
        "loss": loss_by_step(logs),
        "evaluation": under_each_run(_read(paths.evaluation_table(BASE)), answers),
        "norms": pd.concat([_of_run(run, paths.lora_norms(run.name)) for run in runs]),
        **{path.stem: _read(path) for path in sorted(paths.COMPARE_TABLES.glob("*.csv"))},
        **{name: _interventions(params, name) for name in INTERVENTIONS},
    }


def _interventions(params: Params, name: str) -> pd.DataFrame:
    """One kind of them in all runs; its columns alone where none was made."""
    tables = [
        _of_run(run, paths.interventions(run.name) / f"{name}.csv")
        for run in params.runs.all
        if run.condition in params.intervene.conditions
    ]
    columns = ["run", "condition", "seed", "prompt", *INTERVENTIONS[name]]
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def _of_run(run: Run, path: Path) -> pd.DataFrame:
    table = _read(path)
    named = table.assign(run=run.name, condition=run.condition, seed=run.seed)
    return named[["run", "condition", "seed", *table]]


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_NAMES, keep_default_na=False, na_values=[""])


def summarise(study: Study) -> Study:
    """With all that the figures draw, the page prints and the verdicts weigh."""
    tables, settings, checkpoints = study.tables, study.params.statistics, study.checkpoints
    drift, places = tables["drift"], tables["change_by_place"]
    evaluation = tables["evaluation"]
    checkpoint_loss = loss_at_checkpoints(tables["loss"], evaluation)
    known = baseline_table(drift, evaluation, tables["norms"], checkpoint_loss, checkpoints)
    summaries = {
        "checkpoint_loss": checkpoint_loss,
        "understanding": with_interval(
            where(evaluation, role="evaluation"),
            ["condition", "type", "word", "checkpoint"],
            "p",
            settings,
        ),
        "drift_summary": drift_summary(drift, settings),
        "mapping": mapping(drift, tables["between_runs"], evaluation, settings),
        "mapping_by_place": mapping_by_place(places, study.last, settings),
        "change": change_map(places, study.focus, study.last),
        "overlap_summary": overlap_summary(tables["overlap"]),
        "faithfulness_summary": faithfulness_summary(tables["faithfulness"], settings),
        "transfer_summary": transfer_summary(tables["transfer"], settings),
        "patching_summary": patching_summary(tables["patching"], settings),
        "specificity_summary": specificity_summary(tables["specificity"], settings),
        "ablation_rank_summary": with_interval(
            tables["ablation_rank"], ["condition", "checkpoint"], "spearman", settings
        ),
        "baselines": compare_baselines(known, settings),
    }
    return replace(study, tables={**tables, **summaries})
