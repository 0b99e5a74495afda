"""Experiments of a small pipeline through DVC's queue: stopped, killed, brought back, failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from circuitdrift.core.errors import InputError
from circuitdrift.sweep.plan import Experiment
from circuitdrift.sweep.queue import finished, run

SRC = Path(__file__).resolve().parents[1] / "src"
PATIENCE_S = 240

# Waits for a file, so that a test decides how long it runs; a line in the log says that it did.
MAKE = """
import json, os, time
from pathlib import Path

lines = Path("params.yaml").read_text().splitlines()
number, fails = (int(line.split(": ")[1]) for line in lines[:2])
notes = Path(os.environ["NOTES"])
with (notes / "log").open("a") as log:
    log.write(json.dumps({"number": number, "pid": os.getpid()}) + "\\n")
while not (notes / "go").exists():
    time.sleep(0.05)
if fails:
    raise SystemExit("this one cannot be made")
Path("made.txt").write_text(f"{number}\\n")
"""
FILES = {
    # Not `size`: DVC's run cache leaves params of that name out of its keys.
    "params.yaml": "number: 0\nfails: 0\nnote: ab\nrate: 1.0\n",
    "code/make.py": MAKE,
    "code/tell.py": "open('told.csv', 'w').write('number\\n' + open('made.txt').read())\n",
    "dvc.yaml": """
stages:
  make:
    cmd: python code/make.py
    params: [number, fails]
    deps: [code/make.py]
    outs: [made.txt]
  tell:
    cmd: python code/tell.py
    deps: [code/tell.py, made.txt, reports/scaling]
    outs:
      - told.csv: {cache: false}
""",
    ".gitignore": "/made.txt\n",
    "reports/scaling/measures.csv": "",
}
# In a process of its own, which a test may stop.
RUN = """
import json, signal, sys
from pathlib import Path
from circuitdrift.sweep.plan import Experiment
from circuitdrift.sweep.queue import run

# A suite that was started in the background ignores Ctrl-C, and what it starts does too.
signal.signal(signal.SIGINT, signal.default_int_handler)
experiments = [Experiment(**values) for values in json.loads(sys.argv[1])]
run(Path.cwd(), experiments, workers=2, poll_s=1.0)
"""


def experiment(number: int, fails: int = 0) -> Experiment:
    params = {"number": number, "fails": fails, "note": "it's [odd], 2e-05", "rate": 2e-05}
    return Experiment(f"number-{number}", params, params)


THREE = [experiment(number) for number in (1, 2, 3)]


class Study:
    """A clone of the small pipeline, and what its stages noted."""

    def __init__(self, root: Path, notes: Path) -> None:
        self.root = root
        self.notes = notes
        self.started: list[subprocess.Popen[bytes]] = []

    def do(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, encoding="utf-8"
        ).stdout

    def commit(self) -> None:
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "--message", "Change")

    def start(self, experiments: list[Experiment]) -> subprocess.Popen[bytes]:
        values = json.dumps([vars(each) for each in experiments])
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        command = [sys.executable, "-c", RUN, values]
        self.started.append(subprocess.Popen(command, cwd=self.root, env=environment))
        return self.started[-1]

    @property
    def stages(self) -> list[dict[str, Any]]:
        """number and pid of each time that the first stage ran."""
        log = self.notes / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def alive(self) -> list[int]:
        """pids of first stages that run."""
        return [stage["pid"] for stage in self.stages if lives(stage["pid"])]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    root, notes = (tmp_path_factory.mktemp("sweep") / name for name in ("a clone", "notes"))
    made = Study(root, notes)
    notes.mkdir()
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTES", str(notes))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        made.do("git", "init", "--quiet")
        made.do("git", "config", "user.name", "Test")
        made.do("git", "config", "user.email", "test@example.org")
        made.do("dvc", "init", "--quiet")
        made.do("dvc", "config", "core.analytics", "false")
        made.commit()
        yield made
        for process in made.started:
            process.kill()
            process.wait()
        made.do("dvc", "queue", "stop", "--kill")


def test_a_shallow_clone_is_refused_before_anything_is_queued(tmp_path: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a"]
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", str(origin)], check=True)
    for _ in range(2):
        commit = ["commit", "--quiet", "--allow-empty", "--message=a"]
        subprocess.run(["git", *author, *commit], cwd=origin, check=True)
    shallow = ["git", "clone", "--quiet", "--depth=1", f"file://{origin}", str(clone)]
    subprocess.run(shallow, check=True)
    with pytest.raises(InputError, match="git fetch --unshallow"):
        run(clone, [experiment(1)], workers=1)


@pytest.mark.slow
def test_a_stopped_sweep_leaves_nothing_running(study: Study) -> None:
    process = study.start(THREE)
    wait_until(lambda: len(study.alive) == 2)  # of three: so many workers were asked for
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) != 0
    wait_until(lambda: not study.alive)
    assert finished(study.root, THREE) == {}
    assert study.do("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_sweep_goes_on_where_workers_were_killed(study: Study) -> None:
    before = len(study.stages)
    process = study.start(THREE)
    wait_until(lambda: len(study.alive) == 2)
    process.kill()
    for pid in study.alive:
        os.killpg(os.getpgid(pid), signal.SIGKILL)  # a worker and all that it started
    (study.notes / "go").touch()
    assert run(study.root, THREE, workers=2, poll_s=1.0) == {}
    commits = finished(study.root, THREE)
    assert sorted(commits) == ["number-1", "number-2", "number-3"]
    for each in THREE:
        told = study.do("git", "show", f"{commits[each.name].revision}:told.csv")
        assert told == f"number\n{each.params['number']}\n"
        assert commits[each.name].code == study.do("git", "rev-parse", "HEAD").strip()
    assert len(study.stages) == before + 2 + 3


@pytest.mark.slow
def test_a_failure_is_reported_and_what_is_finished_not_run_again(study: Study) -> None:
    before = len(study.stages)
    failed = run(study.root, [*THREE, experiment(4, fails=1)], workers=2, poll_s=1.0)
    assert list(failed) == ["number-4"]
    assert "this one cannot be made" in failed["number-4"]
    assert [stage["number"] for stage in study.stages[before:]] == [4]


@pytest.mark.slow
def test_other_params_other_code_and_other_inputs_are_not_finished(study: Study) -> None:
    other = Experiment("number-1", {"fails": 2}, {**THREE[0].params, "fails": 2})
    assert finished(study.root, [other]) == {}
    (study.root / "README.md").write_text("What no stage reads.\n", encoding="utf-8")
    measures = study.root / "reports" / "scaling" / "measures.csv"
    measures.write_text("What the sweep itself writes.\n", encoding="utf-8")
    study.commit()
    assert len(finished(study.root, THREE)) == 3
    code = study.root / "code" / "tell.py"
    code.write_text(code.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    study.commit()
    assert finished(study.root, THREE) == {}


@pytest.mark.slow
def test_a_tree_with_changes_is_refused_before_anything_is_queued(study: Study) -> None:
    before = len(study.stages)
    (study.root / "code" / "tell.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"code/tell\.py"):
        run(study.root, [experiment(8)], workers=1)
    assert len(study.stages) == before
