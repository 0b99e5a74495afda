"""What a sweep's experiments say: measures from an experiment's tables, and the page from two."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from circuitdrift.core.errors import InputError
from circuitdrift.sweep import summary
from circuitdrift.sweep.plan import load_sweep

ROOT = Path(__file__).resolve().parents[1]
SWEEP = """
every: {runs.seeds: [0, 1]}
memory_gb: 1
arms:
  grid: {product: {train.epochs: [1, 2], dataset.n_examples: [25, 50]}}
  ladder: {rungs: {original: {train.warmup_steps: 100}}}
"""
EPOCHS_1 = "n_examples-25-epochs-1"
SEEDS, WORDS = (0, 1), ("blarf", "glide")


class Clone:
    """A git clone with the study's params, a sweep and no pipeline to speak of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data").mkdir()
        shutil.copy(ROOT / "data" / "constraints.yaml", root / "data")
        shutil.copy(ROOT / "params.yaml", root)
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

    def keep_experiment(self, name: str, tables: Mapping[Path, pd.DataFrame]) -> str:
        """A commit as DVC makes one; the working tree is as before."""
        code = self.git("rev-parse", "HEAD")
        (planned,) = (each for each in load_sweep(self.root).experiments if each.name == name)
        YAML().dump(dict(planned.params), self.root / "params.yaml")
        (self.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
        for path, table in tables.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(self.root / path, index=False)
        revision = self.commit()
        self.git("update-ref", f"refs/exps/{code[:2]}/{code[2:]}/{name}", revision)
        self.git("reset", "--quiet", "--hard", code)
        return revision


def run_of(seed: int) -> dict[str, object]:
    return {"run": f"mapped-{seed}", "condition": "mapped", "seed": seed}


def study_tables(accuracy: float = 1.0) -> dict[Path, pd.DataFrame]:
    """Two seeds and two words, every number made for the eye; seed 1 is .1 above seed 0."""
    base = {"run": "base", "condition": "base", "seed": 0, "checkpoint": "base", "step": 0}
    evaluation, drift, loss, overlap, moved = [], [], [], [], []
    for seed in SEEDS:
        run, end = run_of(seed), {"checkpoint": "100", "step": 20}
        for word in WORDS:
            asked = {"role": "evaluation", "type": "simple", "word": word}
            p = {"blarf": 0.2, "glide": 0.6}[word] + 0.1 * seed
            evaluation += [
                {**run, **end, **asked, "p": p, "correct_in_type": accuracy},
                {**base, **asked, "p": 0.01, "correct_in_type": 0},
            ]
            for change, value in (("trained", 0.5), ("random-0", 0.1), ("random-1", 0.3)):
                task = {"role": "discovery", "word": word, "from": "base", "to": "100"}
                drift.append({**run, "change": change, **task, "drift": value + 0.1 * seed})
        evaluation += [
            {**run, **end, "role": "control", "loss": 2.5 + 0.1 * seed},
            {**base, "role": "control", "loss": 2.0},
            {**run, **end, "role": "unseen", "word": "florp", "false_positive": 0.4},
            {**run, "checkpoint": "050", "step": 10, "role": "control", "loss": 9.0},
        ]
        control = {"role": "control", "change": "trained", "from": "base", "to": "100"}
        drift += [{**run, **control, "drift": 0.2}, {**run, **control, "from": "050", "drift": 9}]
        loss += [{"run": run["run"], "step": s, "loss": 4.0 if s <= 10 else 1.0} for s in range(21)]
        shares = {"jaccard": 0.6, "null": 0.2, "corrected": 0.5}
        places = {"from": "base", "to": "100", "role": "discovery"}
        overlap += [{**run, **places, "threshold": t, **shares} for t in (0.7, 0.8)]
        overlap[-1]["jaccard"] = 0.0
        for change, grown in (("trained", 30 + seed), ("random-0", 0), ("random-1", 4)):
            counts = {"n_tested": 99, "n_grown": grown, "n_shrunk": 2}
            moved.append({**run, "change": change, **counts})
    whole = {"condition": "mapped", "checkpoint": "100", "ablation": "mean"}
    faithfulness = [
        {**whole, "circuit": "own", "measure": "CMD", "size": None, "mean": 0.05},
        {**whole, "circuit": "random", "measure": "CMD", "size": None, "mean": float("inf")},
        {**whole, "circuit": "own", "measure": "faithfulness", "size": 0.02, "mean": 0.9},
        {**whole, "circuit": "own", "measure": "faithfulness", "size": 0.1, "mean": 0.99},
    ]
    recruited = pd.DataFrame([{"word": "blarf", "direction": "recruited"}] * 3)
    searches = pd.DataFrame([{"comparison": "mapped vs shuffled", "n_found": 3}])
    return {
        summary.REPORT / "evaluation.csv": pd.DataFrame(evaluation),
        summary.REPORT / "loss.csv": pd.DataFrame(loss),
        summary.REPORT / "faithfulness_summary.csv": pd.DataFrame(faithfulness),
        summary.COMPARE / "drift.csv": pd.DataFrame(drift),
        summary.COMPARE / "overlap.csv": pd.DataFrame(overlap),
        summary.COMPARE / "moved_features.csv": pd.DataFrame(moved),
        summary.COMPARE / "recruited.csv": recruited,
        summary.COMPARE / "recruitment_nulls.csv": searches,
    }


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def committed(clone: Clone) -> pd.DataFrame:
    measures = pd.read_csv(clone.root / summary.MEASURES, keep_default_na=False)
    return measures.set_index(["experiment", "measure", "seed", "word"])["value"]


def test_measures_of_a_finished_experiment(clone: Clone) -> None:
    revision = clone.keep_experiment(EPOCHS_1, study_tables())
    assert summary.summarise(clone.root) == 1
    values = committed(clone)[EPOCHS_1]
    by_hand = {
        ("steps", "1", ""): 20,
        ("accuracy", "0", "blarf"): 1,
        ("base_accuracy", "1", "glide"): 0,
        ("accuracy_by_chance", "0", "blarf"): 1 / 2,
        ("p_answer", "1", "glide"): 0.7,
        ("base_p_answer", "0", "blarf"): 0.01,
        ("training_loss", "0", ""): 1,  # of the steps since the checkpoint before
        ("forgetting", "1", ""): 0.6,
        ("false_positive", "0", "florp"): 0.4,
        ("drift_task", "1", "blarf"): 0.6,
        ("drift_random", "0", "blarf"): 0.2,
        ("drift_beyond_random", "1", "glide"): 0.3,
        ("drift_control", "0", ""): 0.2,
        ("overlap_jaccard", "0", ""): 0.6,
        ("overlap_beyond_chance", "0", ""): 0.5,  # (.6 - .2) / (1 - .2)
        ("moved_features", "1", ""): 33,
        ("moved_features_random", "0", ""): 4,
        ("moved_features_beyond_random", "1", ""): 29,
        ("faithfulness_cmd", "", ""): 0.05,
        ("faithfulness_at_size", "", ""): 0.9,
        ("n_recruited", "", "blarf"): 3,
        ("n_recruited", "", "glide"): 0,
    }
    assert {key: values[key] for key in by_hand} == pytest.approx(by_hand)
    assert "faithfulness_cmd_random" not in values  # infinite
    row = pd.read_csv(clone.root / summary.EXPERIMENTS, dtype=str).iloc[0]
    assert (row["revision"], row["code"]) == (revision, clone.git("rev-parse", "HEAD"))
    assert (row["arms"], row["train.epochs"], row["runs.seeds"]) == ("grid", "1", "[0, 1]")

    # Means are over words, intervals over seeds.
    means = summary.over_seeds(pd.read_csv(clone.root / summary.MEASURES), 0.95)
    means = means.set_index("measure")
    p = means.loc["p_answer"]
    # Seeds .4 and .5: standard error .05, and t of one degree of freedom is 12.7062.
    assert [p["mean"], p["low"], p["high"]] == pytest.approx(
        [0.45, 0.45 - 0.635310, 0.45 + 0.635310], abs=1e-6
    )
    assert pd.isna(means.loc["faithfulness_cmd", "low"])  # of all runs together


def test_new_rows_join_those_that_git_keeps_and_replace_their_own(clone: Clone) -> None:
    clone.keep_experiment(EPOCHS_1, study_tables(accuracy=0.5))
    clone.keep_experiment("original", study_tables(accuracy=0.5))
    summary.summarise(clone.root)
    (clone.root / "dvc.yaml").write_text("stages: {}  # changed\n", encoding="utf-8")
    code = clone.commit()
    tables = study_tables(accuracy=1.0)
    searches = summary.COMPARE / "recruitment_nulls.csv"
    clone.keep_experiment("original", {**tables, searches: tables[searches][:0]})
    assert summary.summarise(clone.root) == 2
    rows = pd.read_csv(clone.root / summary.EXPERIMENTS, dtype=str).set_index("experiment")
    assert list(rows.index) == [EPOCHS_1, "original"]
    assert (rows["code"] == code).to_dict() == {EPOCHS_1: False, "original": True}
    accuracy = committed(clone).xs(("accuracy", "0", "blarf"), level=[1, 2, 3])
    assert accuracy.to_dict() == {EPOCHS_1: 0.5, "original": 1.0}
    # Without a search there is no count of recruited nodes, which is not 0.
    counts = committed(clone).xs("n_recruited", level=1)
    assert set(counts.index.get_level_values(0)) == {EPOCHS_1}


def test_without_any_experiment_there_is_no_page(clone: Clone) -> None:
    with pytest.raises(InputError, match="no experiment"):
        summary.summarise(clone.root)
    assert not (clone.root / summary.PAGE.parent).exists()


def test_the_committed_page_is_that_of_the_committed_tables(clone: Clone) -> None:
    for name in ("sweep.yaml", summary.EXPERIMENTS, summary.MEASURES):
        (clone.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone.root / name)
    summary.summarise(clone.root)
    drawn = {path.name for path in (clone.root / summary.FIGURES).iterdir()}
    assert drawn == {"grid.png", "by_steps.png", "ladder.png"}
    for path in (summary.EXPERIMENTS, summary.MEASURES, summary.PAGE):
        assert (clone.root / path).read_bytes() == (ROOT / path).read_bytes()
