"""The real dvc.yaml on the tiny model, in a clone: what runs, what reruns, what git keeps."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest
from reproduction import set_params
from safetensors.torch import load_file, save_file

from tiny_study import Clone

pytestmark = pytest.mark.slow

RUNS = ("mapped-0", "mapped-1", "rotated-1-0", "rotated-1-1")
INTERVENTIONS = {"intervene@mapped-1", "intervene@rotated-1-1"}


def ran(output: str) -> set[str]:
    """The stages that DVC says it ran."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def stages_of(*runs: str) -> set[str]:
    return {f"{stage}@{run}" for run in runs for stage in ("finetune", "evaluate", "attribute")}


@pytest.fixture
def study(tiny_clone: Clone, tmp_path: Path) -> Clone:
    return tiny_clone.copy(tmp_path)


def test_git_keeps_the_results_and_a_second_run_does_nothing(study: Clone) -> None:
    tracked = set(study.run("git", "ls-files").splitlines())
    assert {"dvc.lock", "reports/report.md", "reports/metrics/study.json"} <= tracked
    kept_by_dvc = (
        "models/base",
        "models/checkpoints",
        "data/dataset/",
        "data/attributions/",
        "reports/runs/",
    )
    assert not [name for name in tracked if name.startswith(kept_by_dvc)]
    assert ran(study.run("dvc", "repro")) == set()
    assert study.run("git", "status", "--porcelain") == ""


def test_a_param_reruns_the_stages_that_read_it_and_those_behind(study: Clone) -> None:
    set_params(study.root / "params.yaml", {"verdicts.alpha": 0.1})
    assert ran(study.run("dvc", "repro")) == {"report"}
    set_params(study.root / "params.yaml", {"train.epochs": 2})
    trained = {*stages_of(*RUNS), "compare", *INTERVENTIONS, "report"}
    assert ran(study.run("dvc", "repro")) == trained


def test_a_directory_that_changed_in_place_is_imported_again(study: Clone) -> None:
    own = study.root.parent / "own model"
    shutil.copytree(study.root / "models" / "base", own)
    (own / "source.json").unlink()
    settings = {"base.model": "directory", "base.directory": str(own)}
    set_params(study.root / "params.yaml", settings)
    assert ran(study.run("dvc", "repro", "make_dataset")) == {"import_base"}  # the same tokenizer
    weights = load_file(own / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    assert ran(study.run("dvc", "repro", "evaluate_base")) == {"import_base", "evaluate_base"}
    assert ran(study.run("dvc", "repro", "evaluate_base")) == set()
    set_params(study.root / "params.yaml", {"base.directory": str(own / "none")})
    assert "none" in study.fail("dvc", "repro", "import_base")


def test_a_seed_that_is_added_is_the_only_one_computed(study: Clone) -> None:
    set_params(study.root / "params.yaml", {"runs.seeds": [0, 1, 2]})
    added = stages_of("mapped-2", "rotated-1-2")
    # Every run's interventions choose nodes in the runs of all other seeds.
    expected = {"make_dataset", *added, "compare", *INTERVENTIONS, "report"}
    assert ran(study.run("dvc", "repro")) == expected


def test_an_experiment_of_a_temporary_folder_is_shown_with_few_columns_of_code(
    study: Clone,
) -> None:
    output = study.run("dvc", "exp", "run", "--temp", "--name", "fewer", "-S", "verdicts.alpha=0.1")
    assert ran(output) == {"report"}
    shown = list(csv.DictReader(io.StringIO(study.run("dvc", "exp", "show", "--csv"))))
    columns = list(shown[0])
    assert [row["verdicts.alpha"] for row in shown if row["Experiment"] == "fewer"] == ["0.1"]
    assert 0 < len([name for name in columns if name.startswith("src/")]) < 40
