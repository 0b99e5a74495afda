"""What a sweep's experiments say: two tables that git keeps, and figures and a page from them.

measures.csv and experiments.csv are all that the page needs, so it can be drawn in any clone; the
experiments' own commits are where they were made.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy import stats

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.files import replacing, write_table, write_text
from circuitdrift.core.study import BASE, TRAINED
from circuitdrift.core.yaml import validate
from circuitdrift.params import Params, load_params
from circuitdrift.report.style import MISSING, markdown, number, page_template, use_style
from circuitdrift.report.summaries import MAPPED, loss_at_checkpoints, middle_threshold, where
from circuitdrift.sweep import figures
from circuitdrift.sweep.plan import Experiment, Sweep, load_sweep
from circuitdrift.sweep.queue import Commit, finished, git

EXPERIMENTS = paths.SCALING / "experiments.csv"
MEASURES = paths.SCALING / "measures.csv"
FIGURES = paths.SCALING / "figures"
PAGE = paths.SCALING / "scaling.md"
TEMPLATE = Path(__file__).with_name("summary.md.j2")

# Folders of an experiment's commit that hold its tables.
COMPARE = paths.COMPARE_TABLES
REPORT = paths.REPORT_TABLES

RUN = ["condition", "seed"]
KEYS = [*RUN, "word", "measure"]
FOCUS = MAPPED  # the condition that the page is about
COUNTS = ("steps", "moved_features", "moved_features_random")

# Names that pandas would read as numbers or as nothing; a checkpoint is called 100.
_TEXT = dict.fromkeys(("experiment", "run", "condition", "word", "role", "from", "to"), str)
_TEXT |= dict.fromkeys(("checkpoint", "change", "measure", "ablation", "circuit", "type"), str)

LABELS = {
    "steps": "steps",
    "training_loss": "training loss",
    "accuracy": "accuracy",
    "p_answer": "p(answer)",
    "drift_task": "drift of task prompts",
    "drift_control": "drift of control prompts",
    "drift_random": "drift under random adapters",
    "overlap_beyond_chance": "overlap beyond chance",
    "overlap_corrected": "chance-corrected overlap",
    "n_recruited": "recruited nodes per word",
    "moved_features": "moved features",
    "moved_features_random": "moved features under random adapters",
    "faithfulness_cmd": "CMD of its own circuits",
    "faithfulness_cmd_random": "CMD of random circuits",
    "forgetting": "forgetting",
    "false_positive": "probability on unseen words",
}

# measure: (table, the rows that it is of, column, by word or not); a mean over prompts.
_ASKED, _CONTROL = {"role": "evaluation"}, {"role": "control"}
_TASK = {"change": TRAINED, "role": "discovery"}
SOURCES: dict[str, tuple[Any, ...]] = {
    "steps": ("evaluation", {}, "step"),
    "training_loss": ("loss", {}, "loss"),
    "accuracy": ("evaluation", _ASKED, "correct_in_type", "word"),
    "base_accuracy": ("base", _ASKED, "correct_in_type", "word"),
    "accuracy_by_chance": ("evaluation", _ASKED, "chance", "word"),
    "p_answer": ("evaluation", _ASKED, "p", "word"),
    "base_p_answer": ("base", _ASKED, "p", "word"),
    "false_positive": ("evaluation", {"role": "unseen"}, "false_positive", "word"),
    "control_loss": ("evaluation", _CONTROL, "loss"),
    "base_control_loss": ("base", _CONTROL, "loss"),
    "drift_task": ("drift", _TASK, "drift", "word"),
    "drift_random": ("drift", {**_TASK, "change": "random"}, "drift", "word"),
    "drift_control": ("drift", {**_TASK, **_CONTROL}, "drift"),
    "overlap_jaccard": ("overlap", {}, "jaccard"),
    "overlap_null": ("overlap", {}, "null"),
    "overlap_corrected": ("overlap", {}, "corrected"),
    "overlap_beyond_chance": ("overlap", {}, "beyond"),
    "moved_features": ("moved", {"change": TRAINED}, "n"),
    "moved_features_random": ("moved", {"change": "random"}, "n"),
    "n_recruited": ("recruited", {}, "n", "word"),
    "faithfulness_cmd": ("faithfulness", {"measure": "CMD", "circuit": "own"}, "mean"),
    "faithfulness_cmd_random": ("faithfulness", {"measure": "CMD", "circuit": "random"}, "mean"),
    "faithfulness_cpr": ("faithfulness", {"measure": "CPR", "circuit": "own"}, "mean"),
    "faithfulness_at_size": ("faithfulness", {"measure": "faithfulness", "circuit": "own"}, "mean"),
}
DIFFERENCES = {
    "drift_beyond_random": ("drift_task", "drift_random"),
    "moved_features_beyond_random": ("moved_features", "moved_features_random"),
    "forgetting": ("control_loss", "base_control_loss"),
}


def summarise(root: Path) -> int:
    """Add the experiments that are finished here to the two tables, and draw figures and page.

    Returns how many experiments the page is about.
    """
    params, sweep = load_params(root / paths.PARAMS), load_sweep(root)
    experiments, measures = _committed(root)
    commits = finished(root, sweep.experiments)
    here = [experiment for experiment in sweep.experiments if experiment.name in commits]
    if here:
        rows = [_description(sweep, each, commits[each.name]) for each in here]
        experiments = _with_newer(experiments, pd.DataFrame(rows))
        tables = [_measured(root, each, commits[each.name]) for each in here]
        measures = _with_newer(measures, pd.concat(tables, ignore_index=True))
    if experiments.empty:
        raise InputError(
            Problem(
                where=str(root / EXPERIMENTS),
                got="no experiment",
                rule="the page is about finished experiments",
                remedy="run `make sweep`, or `git checkout -- reports/scaling`",
            )
        )
    write_table(root / EXPERIMENTS, experiments.fillna(""))
    write_table(root / MEASURES, measures)

    page = Page(experiments, measures, sweep, params.statistics.confidence)
    plt.switch_backend("agg")
    use_style()
    drawn = figures.draw(page.values, page.settings, page.arms)
    with replacing(root / FIGURES) as directory:
        directory.mkdir()
        for name, figure in drawn.items():
            # matplotlib writes its version into a PNG unless told not to.
            figure.savefig(directory / f"{name}.png", dpi=100, metadata={"Software": None})
            plt.close(figure)
    text = page_template(TEMPLATE).render(page=page, figures=drawn, labels=LABELS, params=params)
    write_text(root / PAGE, text)
    return len(experiments)


def _committed(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables as they are; empty where there are none yet."""
    if not (root / EXPERIMENTS).is_file():
        return pd.DataFrame(columns=["experiment"]), pd.DataFrame(columns=["experiment"])
    experiments = pd.read_csv(root / EXPERIMENTS, dtype=str, keep_default_na=False)
    return experiments, _read((root / MEASURES).read_text(encoding="utf-8"))


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


def _measured(root: Path, experiment: Experiment, commit: Commit) -> pd.DataFrame:
    """The rows of one experiment in measures.csv, from its commit."""

    def read(path: Path) -> pd.DataFrame:
        return _read(git(root, "show", f"{commit.revision}:./{path.as_posix()}"))

    params = validate(Params, experiment.params, source=experiment.name)
    table = measures_of(read, params).assign(experiment=experiment.name)
    return table[["experiment", *KEYS, "value"]]


def _read(text: str) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text), dtype=_TEXT, keep_default_na=False, na_values=[""])
    if "word" in table:
        table["word"] = table["word"].fillna("")
    return table.astype({"seed": "Int64"}) if "seed" in table else table


def measures_of(read: Callable[[Path], pd.DataFrame], params: Params) -> pd.DataFrame:
    """Every measure of one experiment's last checkpoint.

    Args:
        read: gives one of the tables that the stages compare and report keep.

    Returns:
        condition, seed (empty where runs are taken together), word (empty where a measure has
        none), measure, value. What an experiment did not measure has no row.
    """
    tables = _at_the_end(read, params)
    means: dict[str, pd.Series] = {}
    for measure, (name, of, column, *by) in SOURCES.items():
        rows = where(tables[name], **of).groupby([*RUN, *by], dropna=False)
        means[measure] = rows[column].mean()
    for measure, (one, other) in DIFFERENCES.items():
        means[measure] = means[one] - means[other]
    parts = [
        series.rename("value").reset_index().assign(measure=measure)
        for measure, series in means.items()
        if len(series)
    ]
    table = pd.concat(parts, ignore_index=True).astype({"seed": "Int64"}).fillna({"word": ""})
    # A share of next to nothing has no value, and CMD may be infinite.
    return table[np.isfinite(table["value"].astype(float))][[*KEYS, "value"]]


def _at_the_end(read: Callable[[Path], pd.DataFrame], params: Params) -> dict[str, pd.DataFrame]:
    """The tables that :data:`SOURCES` names, of the last checkpoint alone."""
    last = params.train.checkpoint_names[-1]
    evaluation = read(REPORT / "evaluation.csv")
    end = where(evaluation, checkpoint=last)
    runs = end[["run", *RUN]].drop_duplicates()
    # A guess is one of the answers of the prompt's type, and each word has its own.
    asked = where(end, role="evaluation")
    chance = 1 / asked.groupby("type")["word"].transform("nunique")
    # One base model stands under every run.
    base = where(evaluation, run=BASE).drop(columns=RUN).merge(runs[RUN], how="cross")
    loss = loss_at_checkpoints(read(REPORT / "loss.csv"), evaluation)

    ends = {"from": BASE, "to": last}
    drift = where(read(COMPARE / "drift.csv"), **ends)
    overlap = where(read(COMPARE / "overlap.csv"), **ends, role="discovery")
    overlap = overlap[np.isclose(overlap["threshold"], middle_threshold(params.compare.thresholds))]
    beyond = (overlap["jaccard"] - overlap["null"]) / (1 - overlap["null"])
    moved = read(COMPARE / "moved_features.csv")

    # Without a search there is no count: that is not the same as none.
    searched = read(COMPARE / "recruitment_nulls.csv")["comparison"].eq("mapped vs shuffled").any()
    recruited = read(COMPARE / "recruited.csv")
    found = where(recruited, direction="recruited")["word"].value_counts()
    counts = found.reindex(sorted(set(asked["word"])) if searched else [], fill_value=0)

    faithfulness = where(
        read(REPORT / "faithfulness_summary.csv"), ablation="mean", checkpoint=last
    )
    at_size = np.isclose(faithfulness["size"], params.intervene.transfer_size)
    faithfulness = faithfulness[faithfulness["size"].isna() | at_size]
    together = {"condition": FOCUS, "seed": pd.NA}
    return {
        "evaluation": end.assign(chance=chance),
        "base": base,
        "loss": where(loss, checkpoint=last).merge(runs, on="run"),
        "drift": drift.assign(change=_without_draw(drift["change"])),
        "overlap": overlap.assign(beyond=beyond),
        "moved": moved.assign(
            change=_without_draw(moved["change"]), n=moved["n_grown"] + moved["n_shrunk"]
        ),
        "recruited": counts.rename_axis("word").reset_index(name="n").assign(**together),
        "faithfulness": faithfulness.assign(seed=pd.NA),
    }


def _without_draw(changes: pd.Series) -> pd.Series:
    """random-0, random-1, ... all as random: draws are averaged."""
    return changes.str.replace(r"-\d+$", "", regex=True)


def over_seeds(measures: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Each measure's mean over words, then over seeds, with a t interval from two seeds on.

    Returns:
        experiment, measure, mean, low, high, n_seeds, of the page's condition alone.
    """
    rows = where(measures, condition=FOCUS)
    runs = rows.groupby(["experiment", "measure", "seed"], sort=False, dropna=False)["value"].mean()
    grouped = runs.groupby(["experiment", "measure"], sort=False)
    table = grouped.agg(mean="mean", error="sem", n_seeds="size").reset_index()
    # NaN for one seed.
    half = stats.t.ppf((1 + confidence) / 2, table["n_seeds"] - 1) * table["error"]
    table = table.assign(low=table["mean"] - half, high=table["mean"] + half)
    return table[["experiment", "measure", "mean", "low", "high", "n_seeds"]]


class Page:
    """What the template asks for; all prose stands there.

    Attributes:
        settings: params of each experiment: a row an experiment, a column a dotted key.
        values: of :func:`over_seeds`.
        arms: by kind, each arm's experiments that are in the tables.
    """

    def __init__(
        self, experiments: pd.DataFrame, measures: pd.DataFrame, sweep: Sweep, confidence: float
    ) -> None:
        described = experiments.set_index("experiment")
        self.settings = described.drop(columns=["arms", "revision", "code"]).map(_value)
        self.values = over_seeds(measures, confidence)
        self.names = list(described.index)
        self.codes = described["code"].value_counts(sort=False).to_dict()
        self.seeds = int(self.values["n_seeds"].max())
        self.conditions = sorted(set(measures["condition"]))
        self.arms = {
            kind: {
                arm: [name for name in names if name in self.names] for arm, names in arms.items()
            }
            for kind, arms in sweep.arms.items()
        }
        means = self.values.pivot(index="experiment", columns="measure", values="mean")
        self._means = means.reindex(self.names, columns=sorted({*means, *LABELS}))
        texts = self.values.assign(text=self.values.apply(_text, axis="columns"))
        self._texts = texts.pivot(index="experiment", columns="measure", values="text")

    @property
    def by_steps(self) -> list[str]:
        """Experiments that steps may compare, fewest first."""
        names = figures.on_one_recipe(self.arms)
        return list(self._means.loc[names].sort_values("steps", kind="stable").index)

    def range(self, measure: str) -> str:
        """A measure that all experiments share, or its least and most."""
        low, high = self._means[measure].min(), self._means[measure].max()
        return number(low) if math.isclose(low, high) else f"{number(low)} to {number(high)}"

    def spread(self, names: Sequence[str], measure: str) -> str:
        """Largest minus smallest mean."""
        means = self._means.loc[names, measure]
        return _number(measure, means.max() - means.min())

    def table(self, names: Sequence[str], measures: Sequence[str], changes: bool = False) -> str:
        """A row an experiment; measures that none has are left out.

        With ``changes``, the params in which each one differs from the one before.
        """
        texts = self._texts.reindex(names, columns=measures).dropna(axis="columns", how="all")
        if changes:
            pairs = zip([names[0], *names], names, strict=False)
            texts.insert(0, "changed", [self._changes(*pair) for pair in pairs])
        texts.insert(0, "experiment", [f"`{name}`" for name in names])
        return markdown(texts.fillna(MISSING).rename(columns=LABELS))

    def _changes(self, before: str, after: str) -> str:
        both = self.settings.loc[[before, after]].map(figures.plain)
        changed = {key: both[key] for key in both if both[key].nunique() > 1}
        return ", ".join(f"`{key}` {one} → {other}" for key, (one, other) in changed.items())

    def correlations(self, names: Sequence[str]) -> str:
        """Spearman's rank correlation of each measure with steps and with every varied number."""
        means, settings = self._means.loc[names], self.settings.loc[names]
        numbers = settings[figures.varied(settings)].select_dtypes("number")
        columns = means[["steps"]].join(numbers.rename(columns="`{}`".format))
        columns = columns.loc[:, columns.nunique() > 1]
        rows = [
            {"measure": LABELS[name], **columns.corrwith(means[name], method="spearman")}
            for name in LABELS
            if name != "steps" and means[name].nunique() > 1
        ]
        return markdown(pd.DataFrame(rows))


def _value(text: str) -> Any:
    """A cell of experiments.csv: a number or truth value; text stays text, lists too."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, list) else value


def _text(row: pd.Series) -> str:
    """``mean [low, high]``; no brackets where there is no interval."""
    mean, low, high = (_number(row["measure"], row[name]) for name in ("mean", "low", "high"))
    return mean if low == MISSING else f"{mean} [{low}, {high}]"


def _number(measure: str, value: float) -> str:
    """A count without decimals, anything else with three."""
    return f"{value:.0f}" if measure in COUNTS and math.isfinite(value) else number(value)
