"""Stage ``report``: the figures, their tables, and the page that says what was found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from circuitdrift import figures, paths
from circuitdrift.artifacts import read_json, replacing, write_json, write_table, write_text
from circuitdrift.config import Params
from circuitdrift.identifiers import BASE, SEGMENTS
from circuitdrift.leftovers import remove_other_runs
from circuitdrift.report_tables import Evidence
from circuitdrift.reporting import render_report, study_metrics
from circuitdrift.summaries import (
    change_map,
    checkpoint_order,
    drift_from_base,
    loss_at_checkpoints,
    loss_by_step,
    understanding,
)
from circuitdrift.validation import read_yaml

# What pandas would read as numbers or as nothing, but are names.
_NAMES = dict.fromkeys(("from", "to", "checkpoint", "type", "word"), str)


def run(params: Params) -> None:
    plt.switch_backend("agg")
    for directory in (paths.EVALUATION_TABLES, paths.EVALUATION_METRICS, paths.TRAINING_LOGS):
        remove_other_runs(directory, params.runs.all)
    runs = [member.name for member in params.runs.all]
    checkpoints = params.train.checkpoint_names
    evaluation = pd.concat([_read(paths.evaluation_table(name)) for name in runs])
    logs = {name: pd.read_csv(paths.training_loss(name), sep="\t") for name in runs}
    drift = _read(paths.DRIFT_TABLE)
    original = read_yaml(paths.ORIGINAL_STUDY)

    loss = loss_by_step(logs)
    learned = understanding(evaluation, params.report)
    evidence = Evidence(
        headlines={name: read_json(paths.evaluation_metrics(name)) for name in runs},
        drift=drift,
        features=_read(paths.FEATURE_TABLE),
        checkpoint_loss=loss_at_checkpoints(loss, evaluation),
        drift_summary=drift_from_base(drift, params.report),
        change=change_map(_read(paths.PLACE_TABLE), checkpoints[-1]),
        original=original,
    )
    write_table(paths.LOSS_TABLE, loss)
    write_table(paths.UNDERSTANDING_TABLE, learned)
    write_table(paths.DRIFT_SUMMARY_TABLE, evidence.drift_summary)

    figures.use_style()
    marks = pd.DataFrame({"checkpoint": checkpoints, "progress": params.train.checkpoints})
    drawn = {
        "loss": figures.loss_figure(loss, marks, pd.DataFrame(original["losses"])),
        "understanding": figures.understanding_figure(
            learned, checkpoint_order([BASE, *checkpoints])
        ),
        "drift": figures.drift_figure(evidence.drift_summary, checkpoints),
        "change_by_place": figures.change_figure(evidence.change, SEGMENTS),
    }
    with replacing(paths.FIGURES) as directory:
        directory.mkdir()
        for name, figure in drawn.items():
            _save(figure, directory / f"{name}.png")
    write_text(paths.REPORT, render_report(params, evidence, int(loss["step"].max())))
    write_json(paths.STUDY_METRICS, study_metrics(params, evidence))


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_NAMES, keep_default_na=False, na_values=[""])


def _save(figure: Figure, path: Path) -> None:
    # matplotlib writes its version into a PNG unless told not to; the bytes would vary with it.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
