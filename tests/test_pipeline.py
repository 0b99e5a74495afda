"""The real dvc.yaml on a tiny model, in a temporary clone: what runs, what reruns, what is equal.

Each test finds the clone as the first run of the study left and committed it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
SMALL: dict[str, dict[str, Any]] = {
    "compute": {"threads": 1},
    "runs": {"conditions": ["mapped", "shuffled"], "seeds": [0]},
    "base": {"model": "tiny"},
    "dataset": {"n_examples": 12},
    "train": {"epochs": 1, "checkpoints": [0.5, 1.0]},
    "attribution": {
        "discovery_prompts_per_word": 1,
        "evaluation_prompts_per_word": 1,
        "control_prompts": 2,
        "graph_control_prompts": 1,
        "feature_nodes": 16,
        "candidates_per_place": 8,
    },
    "compare": {"thresholds": [0.5, 0.9], "random_sets": 10},
    "validation": {
        "prompts_per_word": 1,
        "sizes": [0.01, 0.1, 1.0],
        "transfer_size": 0.1,
        "ranked_nodes": 4,
    },
    "statistics": {"bootstrap_samples": 10, "permutations": 10},
}
RUNS = ("mapped-0", "shuffled-0")
OF_A_RUN = ("finetune", "evaluate", "attribute")
AFTER_A_RUN = {"compare", "report"}


def stages_of(*runs: str) -> set[str]:
    return {f"{stage}@{run}" for run in runs for stage in OF_A_RUN}


def environment(home: Path) -> dict[str, str]:
    """An environment in which git and DVC know this clone alone, and `python` is this Python."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_NO_ANALYTICS": "1",
        **{
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
        },
    }


@dataclass(frozen=True)
class Clone:
    """A temporary clone of the study."""

    root: Path
    environment: dict[str, str]

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def do(self, *command: str) -> str:
        return finished(self.start(*command))

    def repro(self) -> set[str]:
        """Run the study; the stages that were run for it."""
        return stages_run(self.do("dvc", "repro"))

    def set_param(self, section: str, key: str, value: Any) -> None:
        yaml = YAML()
        params = yaml.load(self.root / "params.yaml")
        params[section][key] = value
        yaml.dump(params, self.root / "params.yaml")


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':", output, re.MULTILINE))


def make_clone(root: Path) -> Clone:
    """Copy what git tracks or would track, without results; commit it with small params."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists() and name != "dvc.lock" and not name.startswith("reports/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    clone = Clone(root, environment(root.parent))
    for section, values in SMALL.items():
        for key, value in values.items():
            clone.set_param(section, key, value)
    clone.do("git", "init", "--quiet")
    commit(clone)
    return clone


def commit(clone: Clone) -> None:
    clone.do("git", "add", "--all")
    clone.do("git", "commit", "--quiet", "--message", "The study")


@dataclass(frozen=True)
class FirstRuns:
    """The study run in two clones that share nothing."""

    clone: Clone
    stages: set[str]
    lock: str
    lock_of_the_other: str


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> FirstRuns:
    clone, other = (make_clone(tmp_path_factory.mktemp(name) / "study clone") for name in "ab")
    both = [each.start("dvc", "repro") for each in (clone, other)]
    output, _ = map(finished, both)
    commit(clone)
    locks = [(each.root / "dvc.lock").read_text(encoding="utf-8") for each in (clone, other)]
    return FirstRuns(clone, stages_run(output), *locks)


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
    assert first_runs.lock == first_runs.lock_of_the_other


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
