"""The real dvc.yaml on a tiny model, in a temporary clone: what runs, what reruns, what is equal.

Each test finds the clone as the first run of the study left and committed it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from study_clone import RUNS, SMALL, Clone, stages_run
from tiny_study import FirstRuns

OF_A_RUN = ("finetune", "evaluate", "attribute")
AFTER_A_RUN = {"compare", "report"}


def stages_of(*runs: str) -> set[str]:
    return {f"{stage}@{run}" for run in runs for stage in OF_A_RUN}


@pytest.fixture
def study(first_runs: FirstRuns) -> Iterator[Clone]:
    clone = first_runs.clone
    yield clone
    clone.do("git", "reset", "--quiet", "--hard")
    clone.do("git", "clean", "--quiet", "-d", "--force")
    clone.do("dvc", "checkout", "--force")


def test_the_study_runs_end_to_end(first_runs: FirstRuns) -> None:
    assert first_runs.stages == {
        *("import_base", "make_dataset", "evaluate_base", "attribute_base"),
        *stages_of(*RUNS),
        *("compare", "validate@mapped-0", "report"),
    }


def test_two_clones_give_the_same_lock_byte_for_byte(first_runs: FirstRuns) -> None:
    one, other = first_runs.locks
    assert one == other


def test_git_keeps_the_results_and_not_what_dvc_keeps(study: Clone) -> None:
    tracked = study.do("git", "ls-files").splitlines()
    assert {"dvc.lock", "reports/report.md", "reports/metrics/study.json"} <= set(tracked)
    kept_by_dvc = ("models/", "data/dataset/", "data/attributions/")
    assert [name for name in tracked if name.startswith(kept_by_dvc)] == []


def test_a_second_repro_does_nothing(study: Clone) -> None:
    output = study.do("dvc", "repro")
    assert stages_run(output) == set()
    assert "Data and pipelines are up to date." in output
    assert study.do("git", "status", "--porcelain") == ""


def test_another_number_of_epochs_trains_anew_on_the_same_base(study: Clone) -> None:
    study.set_param("train", "epochs", 2)
    assert study.repro() == {*stages_of(*RUNS), *AFTER_A_RUN, "validate@mapped-0"}


def test_another_seed_leaves_the_first_alone(study: Clone) -> None:
    study.set_param("runs", "seeds", [0, 1])
    again = study.repro()
    # With two seeds features can be recruited, and what was recruited is patched in every run.
    again.discard("validate@mapped-0")
    assert again == {*stages_of("mapped-1", "shuffled-1"), *AFTER_A_RUN, "validate@mapped-1"}


def test_an_unrelated_condition_is_another_run(study: Clone) -> None:
    study.set_param("runs", "conditions", [*SMALL["runs"]["conditions"], "unrelated"])
    assert study.repro() == {*stages_of("unrelated-0"), *AFTER_A_RUN}


def test_an_experiment_runs_and_is_shown_with_what_it_varied(study: Clone) -> None:
    output = study.do(
        "dvc", "exp", "run", "--name", "fewer", "--set-param", "compare.top_features=5"
    )
    assert stages_run(output) == AFTER_A_RUN
    (_, baseline) = json.loads(study.do("dvc", "exp", "show", "--json"))
    shown = {exp["name"]: exp["revs"][0]["data"] for exp in baseline["experiments"]}
    for data, top_features in ((shown["fewer"], 5), (baseline["data"], 10)):
        assert data["params"]["params.yaml"]["data"]["compare"]["top_features"] == top_features
        assert data["metrics"]["reports/metrics/study.json"]["data"]


def test_an_experiment_in_dvcs_own_folder_runs_its_own_snapshot(study: Clone) -> None:
    study.set_param("verdicts", "alpha", 0.1)
    assert "report" in stages_run(study.do("dvc", "exp", "run", "--temp", "--name", "aside"))
    assert study.do("git", "status", "--porcelain").split() == ["M", "params.yaml"]
    study.do("dvc", "exp", "apply", "aside")
    assert study.repro() == set()
