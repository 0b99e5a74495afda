"""The command on a repository whose experiments are commits, as DVC keeps them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML
from typer.testing import CliRunner

from circuitdrift import paths
from circuitdrift.artifacts import write_text
from circuitdrift.cli import app
from circuitdrift.errors import InputError
from circuitdrift.scaling import command
from circuitdrift.scaling import names as of
from circuitdrift.scaling.experiments import read_experiment
from circuitdrift.scaling.measures import measure_rows
from circuitdrift.sweeps.plan import Member, Sweep
from simulated_experiments import experiment_tables, write_tables
from simulated_sweep import ONE_RUN, simulated_sweep
from study_tables import study_params

SWEEP = simulated_sweep()


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    git(root, "init", "--quiet")
    Repo.init(root).close()
    write_text(root / "dvc.yaml", f"metrics:\n  - {paths.STUDY_METRICS.as_posix()}\n")
    write_tables(root, ONE_RUN)
    write_params(root, SWEEP.members[0])
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "the study")
    return root


@pytest.fixture(scope="module")
def finished(repository: Path) -> Mapping[str, str]:
    """Every member as a commit that no branch holds, its params its own."""
    head = git(repository, "rev-parse", "HEAD")
    revisions = {}
    for member in SWEEP.members:
        git(repository, "checkout", "--quiet", "--detach", head)
        write_params(repository, member)
        git(repository, "commit", "--quiet", "--all", "--allow-empty", "--message", member.name)
        revisions[member.name] = git(repository, "rev-parse", "HEAD")
    git(repository, "checkout", "--quiet", head)
    return revisions


def write_params(root: Path, member: Member) -> None:
    with (root / paths.PARAMS).open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(member.params.model_dump(mode="json"), file)


@pytest.fixture
def _sweep(finished: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, finished)


def use(monkeypatch: pytest.MonkeyPatch, finished: Mapping[str, str]) -> None:
    def load_sweep(_root: Path) -> Sweep:
        return SWEEP

    def finished_members(_root: Path, _sweep: Sweep) -> dict[str, str]:
        return dict(finished)

    monkeypatch.setattr(command, "load_sweep", load_sweep)
    monkeypatch.setattr(command, "finished_members", finished_members)


def test_an_experiment_is_read_from_its_commit(
    repository: Path, finished: Mapping[str, str]
) -> None:
    member = next(one for one in SWEEP.members if one.name == "original")
    found = read_experiment(repository, member, finished["original"], ["ladder"])
    assert found.params == member.params  # the commit's, not those that lie in the working tree
    assert found.steps == 8
    expected = measure_rows(study_params(ONE_RUN), experiment_tables(ONE_RUN))
    pd.testing.assert_frame_equal(found.measures, expected, check_exact=False, rtol=1e-6)


@pytest.mark.usefixtures("_sweep")
def test_the_command_writes_the_same_each_time(
    repository: Path, finished: Mapping[str, str]
) -> None:
    written = []
    for _ in range(2):
        result = CliRunner().invoke(app, ["scaling", "--root", str(repository)])
        assert result.exit_code == 0, result.output
        assert "reported on 7 experiments" in result.output
        files = sorted((repository / paths.SCALING).rglob("*.*"))
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert set(written[0]) == {
        *("experiments.csv", "measures.csv", "scaling.md"),
        *("grid.png", "by_steps.png", "ladder.png"),
    }
    table = pd.read_csv(repository / command.EXPERIMENTS_TABLE)
    assert dict(zip(table["experiment"], table["revision"], strict=True)) == finished
    assert table["steps"].tolist() == [8] * 7
    measures = pd.read_csv(repository / command.MEASURES_TABLE)
    assert set(measures["experiment"]) == set(finished)
    assert of.MOVED_BEYOND in set(measures["measure"])


def test_unfinished_experiments_are_named(
    repository: Path, finished: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, {name: finished[name] for name in list(finished)[:-1]})
    result = CliRunner().invoke(app, ["scaling", "--root", str(repository)])
    assert result.exit_code == 1
    assert "1 of 7 experiments not finished: no-warm-up" in result.output
    assert "run `make sweep`, or give --partial" in result.output
    result = CliRunner().invoke(app, ["scaling", "--partial", "--root", str(repository)])
    assert result.exit_code == 0, result.output
    page = (repository / command.PAGE).read_text(encoding="utf-8")
    assert "**Not finished, and not on this page:** `no-warm-up`." in page


def test_a_sweep_of_which_nothing_is_finished_is_refused_though_partial(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, {})
    with pytest.raises(InputError, match="7 of 7 experiments not finished") as refused:
        command.report_scaling(repository, partial=True)
    assert "--partial" not in str(refused.value)


def test_a_commit_without_a_table_is_refused(repository: Path) -> None:
    (repository / paths.DRIFT_TABLE).unlink()
    git(repository, "commit", "--quiet", "--all", "--message", "a table fewer")
    revision = git(repository, "rev-parse", "HEAD")
    git(repository, "reset", "--quiet", "--hard", "HEAD~1")
    with pytest.raises(InputError, match=r"no reports/tables/drift\.csv") as refused:
        read_experiment(repository, SWEEP.members[0], revision, ["grid"])
    assert "dvc exp remove epochs-1.n_examples-25" in str(refused.value)
