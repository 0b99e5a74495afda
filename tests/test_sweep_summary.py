"""What a sweep's experiments say: measures from their tables, RQ3's criteria, and the page."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from scipy import stats

from circuitdrift.core.errors import InputError
from circuitdrift.params import Params, load_params
from circuitdrift.report.summaries import SWEEP_CRITERIA, SWEEP_MEASURES
from circuitdrift.sweep import summary
from circuitdrift.sweep.page import Page
from circuitdrift.sweep.plan import load_sweep
from simulated_study import PLANTED, simulated_study

ROOT = Path(__file__).resolve().parents[1]
ASSIGNED = ("mapped", "rotated-1", "rotated-2")
WORDS = {"blarf": "simple", "gleem": "simple", "glide": "spatial", "orbit": "spatial"}


def evaluated(run: str, role: str, prompt: str, **values: Any) -> dict[str, Any]:
    """A row of evaluation.csv at the end of a run, or of the base model."""
    condition, _, seed = run.rpartition("-") if run != "base" else ("", "", "")
    checkpoint, step = ("100", 20) if condition else ("base", 0)
    place = {"checkpoint": checkpoint, "step": step, "prompt": prompt, "role": role}
    return {"run": run, "condition": condition or "base", "seed": seed or 0, **place, **values}


def test_measures_by_hand() -> None:
    blarf, wug = ({"type": "simple", "word": word} for word in ("blarf", "wug"))
    rows = [
        evaluated("mapped-0", "near", "n0", **blarf, correct=1, p=0.4, frame=0.5, discrimination=1),
        evaluated("mapped-0", "near", "n1", **blarf, correct=0, p=0.2, frame=0.9, discrimination=0),
        evaluated("base", "near", "n0", **blarf, correct=0.5, p=0.1, frame=0.2, discrimination=1),
        evaluated("mapped-0", "unseen", "u0", **wug, frame=0.6),
        evaluated("mapped-0", "substitution", "s0", **blarf, correct=0.5),
        evaluated("mapped-0", "control", "c0", loss=2.5),
        evaluated("mapped-0", "control", "c1", loss=4.0),
        evaluated("base", "control", "c0", loss=2.0),
        evaluated("base", "control", "c1", loss=3.0),
        {**evaluated("mapped-0", "near", "n0", **blarf, correct=0, p=9), "checkpoint": "050"},
    ]
    run = {"run": "mapped-0", "condition": "mapped", "seed": 0}
    end = {**run, "change": "trained", "from": "base", "to": "100"}
    near = {"role": "near", "type": "simple", "unit": "blarf", "gain": 0.7}
    drift = [
        {**end, **near, "drift": 0.5},
        {**end, **near, "drift": 9, "from": "050"},
        {**end, **near, "drift": 9, "to": "050"},
        {**end, **near, "drift": 0.1, "change": "random-0"},
        {**end, **near, "drift": 0.3, "change": "random-1"},
        {**end, "role": "control", "unit": "control-00", "drift": 0.2},
        {**end, "role": "control", "unit": "control-01", "drift": 0.4},
    ]
    losses = [8, 6, 5, 5, 5, 5, 2, 1]
    tables = {
        "evaluation.csv": rows,
        "drift.csv": drift,
        "loss.csv": [{**run, "step": i + 1, "loss": loss} for i, loss in enumerate(losses)],
    }

    def read(path: Path) -> pd.DataFrame:
        return summary._read(pd.DataFrame(tables[path.name]).to_csv(index=False))

    made = summary.measures_of(read, "100")
    keys = ["condition", "word", "measure"]
    assert made.set_index(keys)["value"].to_dict() == pytest.approx(
        {
            ("mapped", "blarf", "accuracy"): 0.5,
            ("mapped", "blarf", "p"): 0.3,
            ("mapped", "blarf", "frame"): 0.7,
            ("mapped", "blarf", "discrimination"): 0.5,
            ("mapped", "wug", "frame_unseen"): 0.6,
            ("mapped", "blarf", "substitution"): 0.5,
            ("mapped", "", "control_loss_change"): 0.75,  # (0.5 + 1) / 2
            ("mapped", "blarf", "drift"): 0.5,
            ("mapped", "blarf", "gain"): 0.7,
            ("mapped", "blarf", "drift_random"): 0.2,
            ("mapped", "", "drift_control"): 0.3,
            ("mapped", "", "steps"): 20,
            ("mapped", "", "training_loss"): 1.5,  # of the last two of eight steps
            ("mapped", "", "first_loss"): 7,
        }
    )
    n = made.set_index(keys)["n"]
    assert (n["mapped", "blarf", "accuracy"], n["mapped", "blarf", "drift"]) == (2, 1)


def measured(
    experiment: str, cell: Mapping[str, float], conditions: tuple[str, ...] = ASSIGNED
) -> list[dict[str, Any]]:
    """Rows of measures.csv: seeds .1 apart around a cell's means, words .02 apart in a type."""
    return [
        {
            "experiment": experiment,
            "condition": condition,
            "seed": seed,
            "type": "" if measure == "steps" else kind,
            "word": "" if measure == "steps" else word,
            "measure": measure,
            "value": mean
            + (0 if measure == "steps" else 0.1 * (seed - 0.5) + spread * (-1) ** place),
            "n": 8,
        }
        for condition in conditions
        for seed in (0, 1)
        for measure, mean in cell.items()
        for place, (word, kind) in enumerate([*WORDS.items()][: 1 if measure == "steps" else None])
        for spread in (0.0 if condition == "foils" else 0.01,)
    ]


def page_of(
    cells: Mapping[str, Mapping[str, float]],
    between: float | None = 0.2,
    conditions: tuple[str, ...] = ASSIGNED,
    **settings: Any,
) -> Page:
    """Of cells named `arm`, examples and epochs; ``settings`` are of all of them."""
    rows, measures = [], []
    for name, cell in cells.items():
        arm, n, epochs = name.split()
        regime = arm == "original"
        experiment = "original-regime" if regime else name
        about = {"experiment": experiment, "arms": f"x;{arm}", "revision": "a", "code": "b"}
        about |= {"dataset.n_examples": n, "train.epochs": epochs}
        about |= {"runs.conditions": str([*conditions]).replace("'", '"'), "runs.seeds": "[0, 1]"}
        about |= {"train.schedule": "linear" if regime else "constant", **settings}
        rows.append(about)
        measures += measured(experiment, cell, conditions)
    runs = pd.DataFrame(
        [
            ("near", "simple", "blarf", "mapped-0", "100", "mapped-1", "100", 1.0),
            ("near", "simple", "gleem", "rotated-1-0", "100", "rotated-1-1", "100", 1.2),
            ("near", "simple", "blarf", "rotated-1-0", "100", "rotated-1-1", "100", 0.6),
            # None of these counts.
            ("near", "simple", "blarf", "mapped-0", "100", "rotated-1-0", "100", 9.0),
            ("near", "simple", "blarf", "shuffled-0", "100", "shuffled-1", "100", 9.0),
            ("near", "simple", "blarf", "mapped-0", "075", "mapped-1", "075", 9.0),
            ("near", "simple", "blarf", "mapped-0", "075", "mapped-1", "100", 9.0),
            ("control", "", "control-00", "mapped-0", "100", "mapped-1", "100", 9.0),
        ],
        columns=["role", "type", "unit", "run_a", "checkpoint_a", "run_b", "checkpoint_b", "drift"],
    )
    if between is not None:
        runs["drift"] *= between
    table = runs if between is not None else None
    nothing = pd.DataFrame(columns=["experiment"])
    return Page(pd.DataFrame(rows), pd.DataFrame(measures), nothing, table, quick_params())


@lru_cache
def quick_params() -> Params:
    shipped = load_params(ROOT / "params.yaml")
    fewer = shipped.statistics.model_copy(update={"coverage_samples": 500})
    return shipped.model_copy(update={"statistics": fewer})


def cell(drift: float, accuracy: float, steps: int = 21) -> dict[str, float]:
    return {"drift": drift, "accuracy": accuracy, "steps": steps}


# Epochs move drift by .4 and accuracy by .5, examples by .1 and .2; chance in the original regime.
SUPPORTED = {
    "grid 50 1": cell(0.2, 0.4, 7),
    "grid 50 3": cell(0.4, 0.6),
    "grid 50 10": cell(0.6, 0.9, 70),
    "grid 200 1": cell(0.9, 0.1, 25),  # of no criterion
    "matched-steps 25 5.25": cell(0.4, 0.6),
    "matched-steps 50 3": cell(0.5, 0.6),
    "matched-steps 200 0.84": cell(0.45, 0.8),
    "original 9 3": cell(0.1, 1 / 3, 27),
}


def outcomes(page: Page) -> list[Any]:
    """Of both criteria, and of their parts."""
    return [*page.outcomes.values(), list(page.criteria["outcome"])]


def test_the_criteria_as_registered() -> None:
    page = page_of(SUPPORTED)
    assert outcomes(page) == ["holds", "holds", ["holds"] * 4]
    values = page.criteria["value"]
    assert list(values) == pytest.approx([0.1 / 0.4, 0.2 / 0.5, 1 / 3, 0.1])
    # Words' means of runs of one assignment: blarf (1 + .6) / 2, gleem 1.2; times .2.
    assert list(page.criteria["most"]) == pytest.approx([0.5, 0.5, 1 / 3 + 0.05, 0.2])
    low, high = page.criteria.loc[2, ["low", "high"]]
    # Four words of two types, .01 off their type's mean: variance 4 * .01^2 / 2.
    half = stats.t.ppf(0.975, 2) * math.sqrt(4 * 0.01**2 / 2 / 4)
    if not np.isnan(low):  # printed where its coverage is as it says
        assert (low, high) == pytest.approx((1 / 3 - half, 1 / 3 + half))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"matched-steps 50 3": cell(0.61, 0.6)}, ["undecided", "holds", 0]),
        ({"matched-steps 50 3": cell(0.5, 0.5)}, ["undecided", "holds", 1]),
        ({"original 9 3": cell(0.1, 1 / 3 + 0.04)}, ["holds", "undecided", 2]),
        ({"original 9 3": cell(0.21, 1 / 3)}, ["holds", "undecided", 3]),
    ],
)
def test_what_does_not_hold_is_undecided(
    changes: dict[str, dict[str, float]], expected: list[Any]
) -> None:
    *whole, place = expected
    parts = ["undecided" if part == place else "holds" for part in range(4)]
    assert outcomes(page_of({**SUPPORTED, **changes})) == [*whole, parts]


def test_accuracy_fails_where_its_printed_interval_lies_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned = {**SUPPORTED, "original 9 3": cell(0.1, 0.6)}
    for coverage, outcome in ((0.95, "fails"), (0.90, "undecided")):
        simulated = "circuitdrift.statistics.coverage.simulated_coverage"
        monkeypatch.setattr(simulated, lambda *_, share=coverage: share)
        page = page_of(learned)
        assert page.outcomes[2] == outcome
        assert math.isnan(page.criteria.loc[2, "low"]) == (outcome == "undecided")


def test_a_criterion_is_blank_and_names_what_it_lacks() -> None:
    without = {name: cells for name, cells in SUPPORTED.items() if name not in ("grid 50 10",)}
    page = page_of(without)
    assert outcomes(page)[:2] == ["not measured", "holds"]
    assert page.criteria.loc[0, "reason"] == "lacks grid of 10 epochs"
    assert page.criteria.loc[0, "value":"high"].isna().all()

    unequal = page_of({**SUPPORTED, "matched-steps 50 3": cell(0.5, 0.6, 22)})
    assert unequal.criteria.loc[1, "reason"] == "lacks equal steps in matched-steps"
    linear = page_of(SUPPORTED, **{"train.schedule": "linear"})
    assert outcomes(linear)[:2] == ["not measured", "holds"]
    for changed in (
        page_of(SUPPORTED, conditions=("mapped", "rotated-1")),
        page_of(SUPPORTED, **{"runs.seeds": "[0]"}),
    ):
        assert outcomes(changed)[:2] == ["not measured", "not measured"]
        assert "lacks original-regime" in changed.criteria.loc[2, "reason"]
    alone = page_of(SUPPORTED, between=None)
    assert outcomes(alone)[1:] == ["not measured", ["holds"] * 3 + ["not measured"]]


def test_accuracy_is_balanced_where_every_assignment_is_there() -> None:
    table = page_of(SUPPORTED).values.set_index(["experiment", "runs", "measure"])
    row = table.loc["grid 50 3", "assigned", "balanced_accuracy"]
    # Seeds .55 and .65: standard error .05, and t of one degree of freedom is 12.7062.
    assert (row["mean"], row["half"]) == pytest.approx((0.6, 0.635310), abs=1e-6)
    assert "accuracy" not in table.index.get_level_values("measure")
    apart = page_of({"foils 50 3": cell(0.4, 0.6)}, conditions=("mapped", "foils"))
    of_runs = apart.values.set_index(["runs", "measure"])["mean"]
    assert of_runs["assigned", "accuracy"] == of_runs["foils", "accuracy"] == pytest.approx(0.6)
    rows = apart.table(["foils 50 3"], ["steps", "accuracy"]).splitlines()[2:]
    assert [row.split("|")[2].strip() for row in rows] == ["assigned", "foils"]


SWEEP = """
every: {runs.seeds: [0, 1], train.checkpoints: [1.0], intervene.conditions: [], intervene.seeds: []}
memory_gb: 1
arms:
  grid:
    every: {runs.conditions: [mapped, rotated-1, rotated-2], train.schedule: constant}
    product: {train.epochs: [1, 3], dataset.n_examples: [25, 50]}
  24-words:
    every: {runs.conditions: [mapped, rotated-1, rotated-2, unrelated]}
    named: {24-words: {}}
  ladder:
    every: {runs.conditions: [mapped], runs.seeds: [0]}
    rungs: {original: {train.loss_on: sentence}, loss-on-answer: {train.loss_on: answer}}
"""
EPOCHS_1 = "n_examples-50-epochs-1"


class Clone:
    """A git clone with the study's params, a sweep and no pipeline to speak of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "data", root / "data", ignore=shutil.ignore_patterns("dataset*"))
        params = (ROOT / "params.yaml").read_text(encoding="utf-8")
        quick = params.replace("coverage_samples: 20000", "coverage_samples: 500")
        assert quick != params
        (root / "params.yaml").write_text(quick, encoding="utf-8")
        (root / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
        (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        return subprocess.run(
            ["git", *author, *arguments],
            cwd=self.root,
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A")
        return self.git("rev-parse", "HEAD")

    def keep_experiment(self, name: str) -> str:
        """A commit as DVC makes one; the working tree is as before."""
        code = self.git("rev-parse", "HEAD")
        (planned,) = (each for each in load_sweep(self.root).experiments if each.name == name)
        YAML().dump(dict(planned.params), self.root / "params.yaml")
        (self.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
        runs = planned.params["runs"]
        for path, table in study_tables((*runs["conditions"],), (*runs["seeds"],)).items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(self.root / path, index=False)
        revision = self.commit()
        self.git("update-ref", f"refs/exps/{code[:2]}/{code[2:]}/{name}", revision)
        self.git("reset", "--quiet", "--hard", code)
        return revision


@lru_cache
def study_tables(conditions: tuple[str, ...], seeds: tuple[int, ...]) -> dict[Path, pd.DataFrame]:
    """What an experiment of the sweep commits, from a simulated study."""
    plan = replace(PLANTED, conditions=conditions, seeds=seeds, checkpoints=("100",))
    tables = simulated_study(replace(plan, intervened=False, graphs=False)).tables
    return {
        **{summary.REPORT / f"{name}.csv": tables[name] for name in ("evaluation", "loss")},
        summary.REPORT / "criteria.csv": tables["criteria"],
        summary.COMPARE / "drift.csv": tables["drift"],
    }


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_experiments_join_those_that_git_keeps_as_they_are_finished(clone: Clone) -> None:
    first = clone.keep_experiment(EPOCHS_1)
    clone.keep_experiment("original")
    assert summary.summarise(clone.root) == 2
    code = clone.git("rev-parse", "HEAD")
    rows = pd.read_csv(clone.root / summary.EXPERIMENTS, dtype=str).set_index("experiment")
    assert rows.loc[EPOCHS_1, ["arms", "revision", "code"]].to_list() == ["grid", first, code]
    assert list(rows["runs.seeds"]) == ["[0, 1]", "[0]"]
    before = pd.read_csv(clone.root / SWEEP_MEASURES)

    # Of other code: what is committed stays, what is run again is replaced, what is new joins.
    (clone.root / "dvc.yaml").write_text("stages: {}  # changed\n", encoding="utf-8")
    later = clone.commit()
    for name in ("original", "loss-on-answer", "24-words"):
        clone.keep_experiment(name)
    assert summary.summarise(clone.root) == 4
    rows = pd.read_csv(clone.root / summary.EXPERIMENTS, dtype=str).set_index("experiment")
    assert list(rows.index) == [EPOCHS_1, "original", "24-words", "loss-on-answer"]
    assert list(rows["code"]) == [code, later, later, later]
    measures = pd.read_csv(clone.root / SWEEP_MEASURES)
    assert list(measures) == summary.COLUMNS
    pd.testing.assert_frame_equal(measures[: len(before)], before)
    assert not measures.duplicated(summary.COLUMNS[:-2]).any()

    page = (clone.root / summary.PAGE).read_text(encoding="utf-8")
    assert "than two runs of one assignment differ: **not measured**" in page
    assert "on these words: **meanings learned" in page
    assert "| grid | 1 | 4 |" in page
    drawn = {path.name for path in (clone.root / summary.FIGURES).iterdir()}
    assert drawn == {"length_size.png", "ladder.png"}
    written = {path: path.read_bytes() for path in page_files(clone.root)}
    clone.git("for-each-ref", "--format=delete %(refname)", "refs/exps")
    summary.summarise(clone.root)  # and again from what is written
    assert {path: path.read_bytes() for path in page_files(clone.root)} == written


def page_files(root: Path) -> list[Path]:
    return [path for path in sorted((root / summary.PAGE.parent).rglob("*")) if path.is_file()]


def test_tables_of_other_measures_are_set_aside(
    clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone.root / SWEEP_MEASURES).parent.mkdir(parents=True)
    old = {
        SWEEP_MEASURES: "experiment,condition,seed,word,measure,value\na,mapped,0,,steps,4\n",
        summary.EXPERIMENTS: "experiment,arms\na,grid\n",
    }
    for path, text in old.items():
        (clone.root / path).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="make sweep"):
        summary.summarise(clone.root)
    assert "run `make sweep` anew" in capsys.readouterr().out
    assert {path: (clone.root / path).read_text() for path in old} == old
    clone.keep_experiment(EPOCHS_1)
    assert summary.summarise(clone.root) == 1
    assert set(pd.read_csv(clone.root / SWEEP_MEASURES)["experiment"]) == {EPOCHS_1}


def test_without_any_experiment_there_is_no_page(clone: Clone) -> None:
    with pytest.raises(InputError, match="no experiment"):
        summary.summarise(clone.root)
    assert not (clone.root / summary.PAGE.parent).exists()


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_committed_tables(tmp_path: Path) -> None:
    if list(pd.read_csv(ROOT / SWEEP_MEASURES, nrows=0)) != summary.COLUMNS:
        pytest.skip("reports/scaling has other measures: the sweep has not run with this code")
    clone = Clone(tmp_path)
    between = summary.COMPARE / "between_runs.csv"
    names = ("sweep.yaml", "params.yaml", between, summary.EXPERIMENTS, SWEEP_MEASURES)
    for name in (*names, summary.REPLICATIONS):
        (clone.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone.root / name)
    summary.summarise(clone.root)
    for path in (summary.EXPERIMENTS, SWEEP_MEASURES, SWEEP_CRITERIA, summary.PAGE):
        assert (clone.root / path).read_bytes() == (ROOT / path).read_bytes()
