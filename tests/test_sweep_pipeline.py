"""A sweep of the tiny study with two workers: killed, stopped, grown, failed, brought back.

The tests follow one another on one clone, as a researcher's days do.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from circuitdrift.sweeps.dvc_queue import Queue
from circuitdrift.sweeps.git import experiments
from study_clone import Clone, commit, make_clone

GRID = {"train.epochs": [1, 2], "dataset.n_examples": [12, 16]}
MEMBERS = {f"n_examples-{n}-epochs-{epochs}" for n in (12, 16) for epochs in (1, 2)}
PATIENCE_S = 600


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    root = tmp_path_factory.mktemp("sweep") / "study clone"
    made = make_clone(root)
    write_sweep(made, {"grid": {"product": GRID}})
    return made


def write_sweep(clone: Clone, arms: dict[str, object]) -> None:
    every = {"runs.conditions": ["mapped"], "runs.seeds": [0]}
    file = {"every": every, "memory_gb": 1, "arms": arms}
    YAML().dump(file, clone.root / "sweep.yaml")
    commit(clone)


def start_sweep(clone: Clone) -> subprocess.Popen[str]:
    return clone.start("circuitdrift", "sweep", "--workers", "2")


def sweep(clone: Clone) -> tuple[int, str]:
    process = start_sweep(clone)
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, " ".join(output.split())


def finished(clone: Clone) -> dict[str, str]:
    return {each.name: each.revision for each in experiments(clone.root)}


def wait_until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def stages_by_log(clone: Clone) -> dict[str, list[str]]:
    """The stages that each run of an experiment computed."""
    logs = (clone.root / ".dvc/tmp/exps/run").glob("*/*.out")
    texts = {log.stem: log.read_text(encoding="utf-8") for log in logs}
    return {name: re.findall(r"Running stage '([^']+)'", text) for name, text in texts.items()}


def assert_nothing_is_left(clone: Clone) -> None:
    queue = Queue(clone.root)
    assert queue.workers() == []
    assert queue.state().running == {}
    assert list((clone.root / ".dvc/tmp/exps").glob("tmp*")) == []
    locked = clone.root / ".dvc/tmp/rwlock"
    assert not locked.exists() or json.loads(locked.read_text(encoding="utf-8")) == {}
    assert clone.do("git", "status", "--porcelain") == ""


def test_killed_in_the_middle_it_goes_on_and_runs_nothing_twice(clone: Clone) -> None:
    process = start_sweep(clone)
    wait_until(lambda: set(finished(clone)) & MEMBERS)
    process.kill()
    process.communicate()
    for worker in Queue(clone.root).workers():  # as when the machine goes down
        for each in [worker, *worker.children(recursive=True)]:
            each.kill()
    wait_until(lambda: Queue(clone.root).workers() == [])
    before = {name: revision for name, revision in finished(clone).items() if name in MEMBERS}

    code, output = sweep(clone)
    assert code == 0, output
    after = finished(clone)
    assert set(after) == MEMBERS
    assert {name: after[name] for name in before} == before
    assert f"4 of 4 experiments are finished, {4 - len(before)} of them run now." in output
    assert_nothing_is_left(clone)


def test_what_experiments_share_is_not_computed_again(clone: Clone) -> None:
    stages = [stage for stages in stages_by_log(clone).values() for stage in stages]
    assert "import_base" not in stages
    assert "attribute_base" not in stages
    # Two sizes of the data set; one is made beforehand.
    assert stages.count("make_dataset") == 1


def test_there_is_nothing_left_to_do(clone: Clone) -> None:
    code, output = sweep(clone)
    assert (code, "4 of 4 experiments are finished, 0 of them run now." in output) == (0, True)


def test_results_do_not_depend_on_the_number_of_workers(clone: Clone) -> None:
    name = "n_examples-12-epochs-1"
    of_two = clone.do("git", "show", f"{finished(clone)[name]}:dvc.lock")
    clone.do("dvc", "exp", "remove", name)
    clone.do("circuitdrift", "sweep", "--workers", "1")
    assert clone.do("git", "show", f"{finished(clone)[name]}:dvc.lock") == of_two


def test_experiments_are_compared_with_the_best_first(clone: Clone) -> None:
    (line,) = [
        line.split("dvc", 1)[1]
        for line in clone.do("make", "--dry-run", "--silent", "compare", "READY=")
        .replace("\\\n", "")
        .splitlines()
        if "exp show" in line
    ]
    shown = clone.do("sh", "-c", f"COLUMNS=300 dvc {line}")
    assert all(name in shown for name in MEMBERS)
    header = shown.splitlines()[1]
    assert "n_examples" in header
    assert "drift_task" in header
    assert "src/" not in shown


def test_a_new_value_runs_the_new_experiment_alone(clone: Clone) -> None:
    grown = {"grid": {"product": GRID}, "more": {"rungs": {"slower": {"train.epochs": 0.5}}}}
    write_sweep(clone, grown)
    before = stages_by_log(clone)
    code, output = sweep(clone)
    assert code == 0, output
    assert "5 of 5 experiments are finished, 1 of them run now." in output
    (new,) = [stages for log, stages in stages_by_log(clone).items() if log not in before]
    assert len(new) == len(set(new))
    assert not {"import_base", "make_dataset", "attribute_base"}.intersection(new)
    assert "finetune@mapped-0" in new


def test_stopped_it_leaves_no_worker_and_no_lock(clone: Clone) -> None:
    write_sweep(clone, {"later": {"rungs": {"longer": {"train.epochs": 4}}}})
    clone.do("dvc", "exp", "run", "--queue", "--name", "mine", "--set-param", "train.epochs=5")
    process = start_sweep(clone)
    wait_until(lambda: len(Queue(clone.root).state().running) == 2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    said = " ".join(output.split())
    assert "the same command goes on from here" in said
    assert "stopped, and will start over: longer" in said
    assert "stopped, not of this sweep, to be queued again: mine" in said
    assert "mine" in clone.do("dvc", "queue", "status")
    clone.do("dvc", "queue", "remove", "mine")
    assert_nothing_is_left(clone)
    assert [each for each in psutil.process_iter() if of_clone(each, clone.root)] == []


def of_clone(process: psutil.Process, root: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(root)
    except psutil.Error:
        return False


def test_a_failed_experiment_is_reported_with_its_last_words(clone: Clone) -> None:
    stage = clone.root / "src/circuitdrift/stages/finetune.py"
    code_before = stage.read_text(encoding="utf-8")
    stage.write_text(code_before + '\nraise SystemExit("out of luck")\n', encoding="utf-8")
    commit(clone)
    code, output = sweep(clone)
    assert code == 1
    assert "longer failed" in output
    assert "out of luck" in output
    assert "Mend the cause and call it again" in output
    assert_nothing_is_left(clone)
    stage.write_text(code_before, encoding="utf-8")
    commit(clone)


def test_an_experiment_is_brought_back_whole(clone: Clone) -> None:
    clone.do("dvc", "exp", "apply", "n_examples-16-epochs-2")
    assert "Data and pipelines are up to date." in clone.do("dvc", "repro")
    clone.do("git", "reset", "--quiet", "--hard")


def test_a_colleague_gets_an_experiment_with_its_artifacts(clone: Clone, tmp_path: Path) -> None:
    name = "n_examples-12-epochs-2"
    clone.do("git", "init", "--quiet", "--bare", str(tmp_path / "hosted.git"))
    clone.do("git", "remote", "add", "origin", str(tmp_path / "hosted.git"))
    clone.do("git", "push", "--quiet", "origin", "HEAD:refs/heads/main")
    clone.do("dvc", "remote", "modify", "--local", "storage", "url", str(tmp_path / "storage"))
    assert "artifacts" in clone.do("circuitdrift", "share", name)

    colleague = Clone(tmp_path / "colleague", clone.environment)
    hosted = ["--branch", "main", str(tmp_path / "hosted.git"), str(colleague.root)]
    clone.do("git", "clone", "--quiet", *hosted)
    colleague.do("dvc", "remote", "modify", "--local", "storage", "url", str(tmp_path / "storage"))
    colleague.do("dvc", "exp", "pull", "origin", name)
    colleague.do("dvc", "exp", "apply", name)
    assert "Data and pipelines are up to date." in colleague.do("dvc", "repro")
    clone.do("dvc", "exp", "apply", name)
    adapter = "models/checkpoints/mapped-0/100/adapter_model.safetensors"
    assert (colleague.root / adapter).read_bytes() == (clone.root / adapter).read_bytes()
    clone.do("git", "reset", "--quiet", "--hard")


def test_an_experiment_that_is_not_there_is_not_shared(clone: Clone) -> None:
    process = clone.start("circuitdrift", "share", "nothing")
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "n_examples-12-epochs-2" in output  # one of those that there are


def test_what_the_experiments_say_is_reported(clone: Clone) -> None:
    write_sweep(clone, {"grid": {"product": GRID}})
    clone.do("circuitdrift", "scaling")
    table = pd.read_csv(clone.root / "reports/scaling/experiments.csv").set_index("experiment")
    assert table["revision"].to_dict() == {
        name: revision for name, revision in finished(clone).items() if name in MEMBERS
    }
    assert (clone.root / "reports/scaling/scaling.md").is_file()
    # What it wrote is no reason to refuse the next sweep.
    assert sweep(clone)[0] == 0
    clone.do("git", "clean", "--quiet", "-d", "--force", "reports/scaling")


def test_bad_input_is_refused_before_anything_is_queued(clone: Clone) -> None:
    (clone.root / "params.yaml").write_text("changed: 1\n", encoding="utf-8")
    code, output = sweep(clone)
    assert (code, "params.yaml" in output) == (1, True)
    clone.do("git", "checkout", "--quiet", "params.yaml")
    assert Queue(clone.root).state().names == set()
