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
    remove_other_runs,
    replacing,
    write_json,
    write_table,
    write_text,
)
from circuitdrift.core.prompts import read_examples, read_prompts
from circuitdrift.core.study import ASSIGNED, BASE, Run
from circuitdrift.core.yaml import read_yaml
from circuitdrift.report import summaries
from circuitdrift.report.figures import draw
from circuitdrift.report.page import render_report
from circuitdrift.report.style import use_style
from circuitdrift.report.summaries import Study
from circuitdrift.report.verdicts import (
    criteria_tables,
    rq1,
    rq2,
    study_metrics,
    verdict_metrics,
)

if TYPE_CHECKING:
    from circuitdrift.params import Params

# What pandas would read as numbers or as nothing, but are names.
_NAMES = dict.fromkeys(
    (
        *("run", "run_a", "run_b", "donor", "recipient", "condition", "prompt", "role", "type"),
        *("word", "unit", "template", "assigned", "chosen", "change", "from", "to", "checkpoint"),
        *("checkpoint_a", "checkpoint_b", "circuit_from", "model", "ablation", "circuit"),
        *("nodes", "prompts", "kind", "promotes", "suppresses"),
    ),
    str,
)
# The tables of a run's interventions, with the columns that stand for one where none was made.
INTERVENTIONS = {
    "interchange": [
        *("donor", "recipient", "type", "word", "k", "nodes"),
        *("n_prompts", "donor_d", "recipient_d", "patched_d"),
    ],
    "faithfulness": [
        *("model", "ablation", "circuit", "size", "type", "word", "value", "full", "empty"),
    ],
    "transfer": ["circuit_from", "model", "type", "word", "value", "full", "empty"],
    "specificity": ["circuit", "prompts", "unit", "full", "ablated"],
}
# Over all runs or summarised here; those of the stage compare lie in its own folder.
WRITTEN = (
    *("evaluation", "loss", "lora_norms", *INTERVENTIONS, "examples", "checkpoint_loss"),
    *("by_word", "by_condition", "between", "closed"),
    *("criteria", "comparisons", "steps", "words", "coverage"),
)


def run(params: Params) -> None:
    plt.switch_backend("agg")
    use_style()
    _remove_other_runs(params)
    study = summarise(Study(params, _read_tables(params), read_yaml(paths.ORIGINAL_STUDY)))
    write_tables(study)
    figures = draw(study)
    with replacing(paths.FIGURES) as directory:
        directory.mkdir()
        for name, figure in figures.items():
            save(figure, directory / f"{name}.png")
    criteria = study.tables["criteria"]
    verdicts = {"RQ1": rq1(criteria), "RQ2": rq2(criteria)}
    write_text(paths.REPORT, render_report(study, verdicts, list(figures)))


def write_tables(study: Study) -> None:
    """The tables and metrics that git keeps."""
    with replacing(paths.REPORT_TABLES) as directory:
        for name in WRITTEN:
            write_table(directory / f"{name}.csv", study.tables[name])
    with replacing(paths.METRICS) as directory:
        write_json(directory / paths.STUDY_METRICS.name, study_metrics(study))
        write_json(directory / paths.VERDICTS.name, verdict_metrics(study))


def save(figure: Figure, file: Path | IO[bytes]) -> None:
    # matplotlib writes its version into a PNG unless told not to.
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


def summarise(study: Study) -> Study:
    """With all that the figures draw, the page prints and the verdicts weigh."""
    tables, units = study.tables, summaries.of_units(study)
    return replace(
        study,
        tables={
            **tables,
            "checkpoint_loss": summaries.checkpoint_loss(tables["loss"], tables["evaluation"]),
            "by_word": summaries.by_word(units),
            "by_condition": summaries.by_condition(units, study.params),
            "between": summaries.between(study),
            "closed": summaries.closed(study),
            **criteria_tables(study),
        },
    )


def _remove_other_runs(params: Params) -> None:
    """What is left of runs, or of interventions in runs, that params.yaml no longer names."""
    remove_other_runs(paths.RUNS, params.runs.all)
    intervened = _intervened(params)
    for run in params.runs.all:
        if run not in intervened:
            shutil.rmtree(paths.interventions(run.name), ignore_errors=True)


def _intervened(params: Params) -> list[Run]:
    settings = params.intervene
    return [
        run
        for run in params.runs.all
        if run.condition in settings.conditions and run.seed in settings.seeds
    ]


def _read_tables(params: Params) -> dict[str, pd.DataFrame]:
    """The tables of the stages before, by name, those of each run over all runs."""
    runs = params.runs.all
    logs = {run.name: pd.read_csv(paths.training_loss(run.name), sep="\t") for run in runs}
    answers = [_read(paths.evaluation_table(name)) for name in (BASE, *(run.name for run in runs))]
    return {
        "evaluation": pd.concat(answers, ignore_index=True),
        "loss": summaries.loss_by_step(logs),
        "lora_norms": pd.concat([_of_run(run, paths.lora_norms(run.name)) for run in runs]),
        "examples": _examples(params),
        **{path.stem: _read(path) for path in sorted(paths.COMPARE_TABLES.glob("*.csv"))},
        **{name: _interventions(params, name) for name in INTERVENTIONS},
        **_sweep(),
    }


def _sweep() -> dict[str, pd.DataFrame]:
    """What `make scaling` wrote; without rows where it has not been there."""
    if not summaries.SWEEP_CRITERIA.is_file():
        return {"rq3": pd.DataFrame(), "sweep": pd.DataFrame()}
    return {"rq3": _read(summaries.SWEEP_CRITERIA), "sweep": _read(summaries.SWEEP_MEASURES)}


def _interventions(params: Params, name: str) -> pd.DataFrame:
    """One kind of them in all runs; its columns alone where none was made."""
    tables = [
        _of_run(run, paths.interventions(run.name) / f"{name}.csv") for run in _intervened(params)
    ]
    columns = ["run", "condition", "seed", *INTERVENTIONS[name]]
    return pd.concat(tables) if tables else pd.DataFrame(columns=columns)


def _examples(params: Params) -> pd.DataFrame:
    """type, word, meaning, training, prompt: of each word one sentence and one prompt.

    The sentence is the first of the first run that teaches an assignment; empty where none does.
    """
    teaching = [run for run in params.runs.all if run.condition in ASSIGNED][:1]
    examples = [one for run in teaching for one in read_examples(paths.training_examples(run.name))]
    sentences = {(one.type, one.word): one.text for one in reversed(examples)}
    prompts = [prompt for prompt in read_prompts(paths.PROMPTS) if prompt.role == "near"]
    rows = {
        (one.type, one.word): (one.answer, sentences.get((str(one.type), str(one.word))), one.text)
        for one in reversed(prompts)
    }
    return pd.DataFrame(
        [(*word, *rows[word]) for word in sorted(rows)],
        columns=["type", "word", "meaning", "training", "prompt"],
    )


def _of_run(run: Run, path: Path) -> pd.DataFrame:
    table = _read(path)
    named = table.assign(run=run.name, condition=run.condition, seed=run.seed)
    return named[["run", "condition", "seed", *table]]


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_NAMES, keep_default_na=False, na_values=[""])
