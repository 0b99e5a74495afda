"""What a sweep's experiments say: tables that git keeps, and figures and a page from them.

experiments.csv, measures.csv and replications.csv are all that the page needs, beside the default
study's committed tables, so it can be drawn in any clone; the experiments' own commits are where
they were made.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import replacing, write_table, write_text
from circuitdrift.core.study import BASE, TRAINED
from circuitdrift.core.yaml import validate
from circuitdrift.params import Params, load_params
from circuitdrift.report.style import page_template, use_style
from circuitdrift.report.summaries import SWEEP_CRITERIA, SWEEP_MEASURES
from circuitdrift.sweep import figures
from circuitdrift.sweep.page import Page
from circuitdrift.sweep.plan import Experiment, Sweep, load_sweep
from circuitdrift.sweep.queue import Commit, finished, git

EXPERIMENTS = paths.SCALING / "experiments.csv"
REPLICATIONS = paths.SCALING / "replications.csv"
FIGURES = paths.SCALING / "figures"
PAGE = paths.SCALING / "scaling.md"
TEMPLATE = Path(__file__).with_name("summary.md.j2")

# Folders of an experiment's commit that hold its tables.
COMPARE = paths.COMPARE_TABLES
REPORT = paths.REPORT_TABLES

UNIT = ["condition", "seed", "type", "word"]
COLUMNS = ["experiment", *UNIT, "measure", "value", "n"]
# measure: (role of prompts, column of evaluation.csv)
ANSWERS = {
    "accuracy": ("near", "correct"),
    "p": ("near", "p"),
    "frame": ("near", "frame"),
    "discrimination": ("near", "discrimination"),
    "frame_unseen": ("unseen", "frame"),
    "far_accuracy": ("far", "correct"),
    "substitution": ("substitution", "correct"),
    "reverse_accuracy": ("reverse", "correct"),
    "control_loss_change": ("control", "control_loss_change"),
}
# measure: (what changed the model, role of prompts, column of drift.csv)
CHANGES = {
    "drift": (TRAINED, "near", "drift"),
    "gain": (TRAINED, "near", "gain"),
    "drift_control": (TRAINED, "control", "drift"),
    "drift_random": ("random", "near", "drift"),
}
LAST_PART = 0.75  # training loss is that of the steps after this share of them

# Names that pandas would read as numbers or as nothing; a checkpoint is called 100.
_TEXT = dict.fromkeys(
    ("experiment", "run", "condition", "checkpoint", "role", "type", "word", "unit", "measure"), str
) | dict.fromkeys(("change", "from", "to", "run_a", "run_b", "checkpoint_a", "checkpoint_b"), str)


def summarise(root: Path) -> int:
    """Add the experiments that are finished here to the tables, and draw figures and page.

    Returns how many experiments the page is about.
    """
    params, sweep = load_params(root / paths.PARAMS), load_sweep(root)
    experiments, measures, replications = _committed(root)
    commits = finished(root, sweep.experiments)
    here = [experiment for experiment in sweep.experiments if experiment.name in commits]
    if here:
        rows = [_description(sweep, each, commits[each.name]) for each in here]
        experiments = _with_newer(experiments, pd.DataFrame(rows))
        tables = [_tables(root, each, commits[each.name]) for each in here]
        measures = _with_newer(measures, pd.concat([own for own, _ in tables]))
        replications = _with_newer(replications, pd.concat([rq2 for _, rq2 in tables]))
    if experiments.empty:
        raise InputError(
            Problem(
                where=str(root / EXPERIMENTS),
                got="no experiment",
                rule="the page is about finished experiments, measured as this code does",
                remedy="run `make sweep`",
            )
        )
    of_study = root / COMPARE / "between_runs.csv"
    between = _read(of_study.read_text(encoding="utf-8")) if of_study.is_file() else None
    page = Page(experiments, measures, replications, between, params)
    for path, table in (
        (EXPERIMENTS, experiments.fillna("")),
        (SWEEP_MEASURES, measures),
        (REPLICATIONS, replications),
        (SWEEP_CRITERIA, page.criteria),
    ):
        write_table(root / path, table)
    plt.switch_backend("agg")
    use_style()
    drawn = figures.draw(page)
    with replacing(root / FIGURES) as directory:
        directory.mkdir()
        for name, figure in drawn.items():
            # matplotlib writes its version into a PNG unless told not to.
            figure.savefig(directory / f"{name}.png", dpi=100, metadata={"Software": None})
            plt.close(figure)
    text = page_template(TEMPLATE).render(page=page, figures=drawn, sweep=sweep, params=params)
    write_text(root / PAGE, text)
    return len(experiments)


def _committed(root: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """experiments.csv, measures.csv and replications.csv as they are.

    Empty where there are none yet, or where another code wrote other columns: its measures are
    not these.
    """
    empty = pd.DataFrame(columns=["experiment"])
    if not (root / SWEEP_MEASURES).is_file():
        return empty, empty, empty
    measures = _read((root / SWEEP_MEASURES).read_text(encoding="utf-8"))
    if list(measures) != COLUMNS or not (root / REPLICATIONS).is_file():
        print(f"{SWEEP_MEASURES} has other measures than this code: run `make sweep` anew")
        return empty, empty, empty
    experiments = pd.read_csv(root / EXPERIMENTS, dtype=str, keep_default_na=False)
    return experiments, measures, _read((root / REPLICATIONS).read_text(encoding="utf-8"))


def _with_newer(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Both tables' experiments, in the old one's order; of one that both have, the new rows."""
    order = {name: i for i, name in enumerate(dict.fromkeys([*old.experiment, *new.experiment]))}
    kept = old[~old["experiment"].isin(new["experiment"])]
    both = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    return both.sort_values("experiment", key=lambda names: names.map(order), kind="stable")


def _description(sweep: Sweep, experiment: Experiment, commit: Commit) -> dict[str, str]:
    """A row of experiments.csv."""
    (params,) = pd.json_normalize(dict(experiment.params)).to_dict("records")
    return {
        "experiment": experiment.name,
        "arms": ";".join(sweep.arms_with(experiment.name)),
        "revision": commit.revision,
        "code": commit.code,
        **{str(key): v if isinstance(v, str) else json.dumps(v) for key, v in params.items()},
    }


def _tables(
    root: Path, experiment: Experiment, commit: Commit
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of one experiment in measures.csv, and what its own report says of RQ2."""

    def read(path: Path) -> pd.DataFrame:
        return _read(git(root, "show", f"{commit.revision}:./{path.as_posix()}"))

    params = validate(Params, experiment.params, source=experiment.name)
    measures = measures_of(read, params.train.checkpoint_names[-1])
    criteria = read(REPORT / "criteria.csv").query("question == 'RQ2'")
    named = {"experiment": experiment.name}
    return measures.assign(**named)[COLUMNS], criteria.assign(**named)


def _read(text: str) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text), dtype=_TEXT, keep_default_na=False, na_values=[""])
    table = table.fillna({name: "" for name in _TEXT if name in table})
    return table.astype({"seed": "Int64"}) if "seed" in table else table


def measures_of(read: Callable[[Path], pd.DataFrame], last: str) -> pd.DataFrame:
    """Every measure of one experiment's runs at their ``last`` checkpoint.

    Args:
        read: gives one of the tables that the stages compare and report keep.

    Returns:
        condition, seed, type, word (both empty where a measure is of none), measure, value, n:
        mean over n prompts or steps. What was not measured has no row.
    """
    evaluation = read(REPORT / "evaluation.csv")
    before = evaluation[evaluation["run"] == BASE].set_index("prompt")["loss"]
    ends = evaluation[(evaluation["checkpoint"] == last) & (evaluation["run"] != BASE)]
    ends = ends.assign(control_loss_change=ends["loss"] - ends["prompt"].map(before))
    drift = read(COMPARE / "drift.csv")
    drift = drift[(drift["from"] == BASE) & (drift["to"] == last)]
    # Draws of random adapters are averaged. A control prompt is of no word.
    change = drift["change"].str.replace(r"-\d+$", "", regex=True)
    word = drift["unit"].where(drift["role"] == "near", "")
    drift = drift.assign(change=change, word=word)

    parts = {
        measure: _means(ends[ends["role"] == role], column)
        for measure, (role, column) in ANSWERS.items()
    }
    for measure, (change, role, column) in CHANGES.items():
        parts[measure] = _means(
            drift[(drift["change"] == change) & (drift["role"] == role)], column
        )
    parts["steps"] = _means(ends.assign(type="", word=""), "step")
    loss = read(REPORT / "loss.csv").assign(type="", word="")
    share = loss["step"] / loss.groupby("run")["step"].transform("max")
    parts["training_loss"] = _means(loss[share > LAST_PART], "loss")
    parts["first_loss"] = _means(loss[share <= 1 - LAST_PART], "loss")
    table = pd.concat([part.assign(measure=measure) for measure, part in parts.items()])
    return table.astype({"seed": "Int64"})


def _means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    means = rows.dropna(subset=column).groupby(UNIT, dropna=False)[column].agg(["mean", "size"])
    return means.reset_index().rename(columns={"mean": "value", "size": "n"})
