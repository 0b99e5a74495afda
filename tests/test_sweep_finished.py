"""Which experiments count as finished, in a git repository of a few small files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from circuitdrift.errors import InputError
from circuitdrift.git import git
from circuitdrift.sweeps.finished import finished_members
from circuitdrift.sweeps.git import check_ready_for_experiments, head
from circuitdrift.sweeps.plan import Sweep, load_sweep
from conftest import ROOT

PIPELINE = """\
stages:
  one:
    deps: [src/code.py, data/constraints.yaml, reports/made.csv, models/base]
    outs: [models/base, {reports/made.csv: {cache: false}}]
"""
SWEEP = """\
every: {}
memory_gb: 1
arms: {a: {product: {train.epochs: [1, 2]}}}
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "clone"
    for folder in ("data", "src", "reports"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "data" / "constraints.yaml", root / "data")
    shutil.copy(ROOT / "params.yaml", root)
    (root / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (root / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    (root / "src" / "code.py").write_text("one = 1\n", encoding="utf-8")
    (root / "reports" / "made.csv").write_text("a\n1\n", encoding="utf-8")
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "Test")
    git(root, "config", "user.email", "test@example.org")
    commit(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The study")


def experiment(root: Path, name: str, epochs: float) -> str:
    """A commit under refs/exps, as DVC leaves one, with other params and another result."""
    baseline = head(root)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    params["train"]["epochs"] = epochs
    yaml.dump(params, root / "params.yaml")
    (root / "reports" / "made.csv").write_text(f"a\n{epochs}\n", encoding="utf-8")
    commit(root)
    revision = head(root)
    git(root, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", revision)
    git(root, "reset", "--quiet", "--hard", baseline)
    return revision


def sweep(root: Path) -> Sweep:
    return load_sweep(root)


def test_an_experiment_of_that_name_with_those_params_is_the_member(clone: Path) -> None:
    revision = experiment(clone, "epochs-2", 2)
    assert finished_members(clone, sweep(clone)) == {"epochs-2": revision}


def test_one_with_other_params_is_not(clone: Path) -> None:
    experiment(clone, "epochs-2", 3)
    assert finished_members(clone, sweep(clone)) == {}


def test_a_commit_that_leaves_code_and_inputs_alone_keeps_it_finished(clone: Path) -> None:
    revision = experiment(clone, "epochs-1", 1)
    (clone / "reports" / "made.csv").write_text("a\n5\n", encoding="utf-8")
    (clone / "README.md").write_text("More words\n", encoding="utf-8")
    commit(clone)
    assert finished_members(clone, sweep(clone)) == {"epochs-1": revision}


@pytest.mark.parametrize("name", ["src/code.py", "dvc.yaml", "data/constraints.yaml"])
def test_a_change_of_code_or_input_makes_it_unfinished(clone: Path, name: str) -> None:
    experiment(clone, "epochs-1", 1)
    with (clone / name).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    commit(clone)
    assert finished_members(clone, sweep(clone)) == {}


def test_of_two_baselines_the_present_one_counts(clone: Path) -> None:
    experiment(clone, "epochs-1", 1)
    (clone / "README.md").write_text("More words\n", encoding="utf-8")
    commit(clone)
    newer = experiment(clone, "epochs-1", 1)
    assert finished_members(clone, sweep(clone)) == {"epochs-1": newer}


def test_a_clean_clone_is_ready(clone: Path) -> None:
    check_ready_for_experiments(clone, besides=Path("reports/scaling"))


def test_changes_are_refused_but_for_what_the_sweep_itself_writes(clone: Path) -> None:
    (clone / "reports" / "scaling").mkdir()
    (clone / "reports" / "scaling" / "page.md").write_text("written\n", encoding="utf-8")
    check_ready_for_experiments(clone, besides=Path("reports/scaling"))
    (clone / "params.yaml").write_text("changed: 1\n", encoding="utf-8")
    (clone / "new.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"git status: got 'params.yaml, new.py'"):
        check_ready_for_experiments(clone, besides=Path("reports/scaling"))


def test_a_git_without_a_name_is_refused(clone: Path) -> None:
    git(clone, "config", "--unset", "user.name")
    git(clone, "config", "--unset", "user.email")
    with pytest.raises(InputError, match=r"no user.name and user.email"):
        check_ready_for_experiments(clone, besides=Path("reports/scaling"))


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run it in a clone of the study"):
        check_ready_for_experiments(tmp_path, besides=Path("reports/scaling"))


def test_a_repository_without_commit_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match="at least one commit"):
        check_ready_for_experiments(tmp_path, besides=Path("reports/scaling"))
