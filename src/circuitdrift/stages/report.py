"""Stage ``report``: the figures, their tables, and the page that says what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift import paths
from circuitdrift.artifacts import read_json, replacing, write_json, write_table, write_text
from circuitdrift.figures.gallery import draw
from circuitdrift.figures.style import use_style
from circuitdrift.headlines import study_metrics
from circuitdrift.identifiers import BASE, Run
from circuitdrift.leftovers import remove_other_runs
from circuitdrift.reporting import Answers, answer, render_report, verdict_metrics
from circuitdrift.summaries.study import StudyTables, Summaries, summarise
from circuitdrift.summaries.training import under_each_run
from circuitdrift.validation import read_yaml

if TYPE_CHECKING:
    from circuitdrift.config.params import Params

# What pandas would read as numbers or as nothing, but are names.
_NAMES = dict.fromkeys(
    (
        *("run", "run_a", "run_b", "condition", "prompt", "role", "type", "word"),
        *("from", "to", "checkpoint", "circuit_from", "model", "circuit", "nodes", "prompts"),
        *("segment", "name", "direction", "comparison", "ablation", "promotes", "suppresses"),
    ),
    str,
)
INTERVENTIONS = {
    "faithfulness": ["checkpoint", "ablation", "circuit", "size", "value", "full", "empty"],
    "transfer": ["circuit_from", "model", "value", "full", "empty"],
    "patching": ["direction", "nodes", "n_nodes", "base", "tuned", "patched"],
    "specificity": ["circuit", "prompts", "full", "ablated"],
    "ablation_rank": ["checkpoint", "n_nodes", "spearman"],
}


def run(params: Params) -> None:
    plt.switch_backend("agg")
    _remove_other_runs(params)
    tables = _read_tables(params)
    summaries = summarise(params, tables)
    answers = answer(params, tables, summaries)
    _write_summaries(summaries, answers)
    use_style()
    figures = draw(params, tables, summaries)
    with replacing(paths.FIGURES) as directory:
        directory.mkdir()
        for name, figure in figures.items():
            _save(figure, directory / f"{name}.png")
    page = render_report(params, tables, summaries, answers, list(figures))
    write_text(paths.REPORT, page)
    write_json(paths.STUDY_METRICS, study_metrics(params, tables, summaries))
    write_json(paths.VERDICTS, verdict_metrics(params, tables, answers))


def _remove_other_runs(params: Params) -> None:
    for directory in (
        paths.EVALUATION_TABLES,
        paths.EVALUATION_METRICS,
        paths.LORA_NORM_TABLES,
        paths.TRAINING_LOGS,
    ):
        remove_other_runs(directory, params.runs.all)
    if paths.VALIDATION_TABLES.is_dir():  # not there where no condition is validated
        remove_other_runs(paths.VALIDATION_TABLES, _validated(params))


def _validated(params: Params) -> list[Run]:
    return [run for run in params.runs.all if run.condition in params.validation.conditions]


def _read_tables(params: Params) -> StudyTables:
    runs = params.runs.all
    evaluation = pd.concat([_read(paths.evaluation_table(run.name)) for run in runs])
    return StudyTables(
        headlines={
            name: read_json(paths.evaluation_metrics(name))
            for name in (BASE, *(run.name for run in runs))
        },
        logs={run.name: pd.read_csv(paths.training_loss(run.name), sep="\t") for run in runs},
        evaluation=under_each_run(_read(paths.evaluation_table(BASE)), evaluation),
        norms=pd.concat([_of_run(run, _read(paths.lora_norms(run.name))) for run in runs]),
        drift=_read(paths.DRIFT_TABLE),
        places=_read(paths.PLACE_TABLE),
        features=_read(paths.FEATURE_TABLE),
        overlap=_read(paths.OVERLAP_TABLE),
        between=_read(paths.BETWEEN_RUNS_TABLE),
        recruited=_read(paths.RECRUITED_TABLE),
        moved=_read(paths.MOVED_FEATURE_TABLE),
        recruitment_nulls=_read(paths.RECRUITMENT_NULLS_TABLE),
        positive_control=_read(paths.POSITIVE_CONTROL_TABLE),
        original=read_yaml(paths.ORIGINAL_STUDY),
        **_read_interventions(params),
    )


def _read_interventions(params: Params) -> dict[str, pd.DataFrame]:
    """Each table over all validated runs, its columns alone where there is none."""
    found: dict[str, list[pd.DataFrame]] = {
        name: [pd.DataFrame(columns=["run", "condition", "seed", "prompt", *columns])]
        for name, columns in INTERVENTIONS.items()
    }
    for run in _validated(params):
        for name in INTERVENTIONS:
            table = _of_run(run, _read(paths.validation_tables(run.name) / f"{name}.csv"))
            found[name].append(table)
    return {name: pd.concat(of_runs[1:] or of_runs) for name, of_runs in found.items()}


def _of_run(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(run=run.name, condition=run.condition, seed=run.seed)


def _write_summaries(summaries: Summaries, answers: Answers) -> None:
    written: Mapping[Path, pd.DataFrame] = {
        paths.LOSS_TABLE: summaries.loss,
        paths.UNDERSTANDING_TABLE: summaries.understanding,
        paths.DRIFT_SUMMARY_TABLE: summaries.drift,
        paths.MAPPING_TABLE: summaries.mapping,
        paths.MAPPING_PLACE_TABLE: summaries.mapping_by_place,
        paths.OVERLAP_SUMMARY_TABLE: summaries.overlap,
        paths.FAITHFULNESS_SUMMARY_TABLE: summaries.faithfulness,
        paths.TRANSFER_SUMMARY_TABLE: summaries.transfer,
        paths.PATCHING_SUMMARY_TABLE: summaries.patching,
        paths.SPECIFICITY_SUMMARY_TABLE: summaries.specificity,
        paths.ABLATION_RANK_SUMMARY_TABLE: summaries.ablation_rank,
        paths.BASELINES_TABLE: summaries.baselines,
        paths.CLAIMS_TABLE: answers.claims,
    }
    for path, table in written.items():
        write_table(path, table)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_NAMES, keep_default_na=False, na_values=[""])


def _save(figure: Figure, path: Path) -> None:
    # matplotlib writes its version into a PNG unless told not to; the bytes would vary with it.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
