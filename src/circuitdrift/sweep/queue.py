"""Running a sweep's experiments in DVC's queue, by the command lines of dvc and git alone.

DVC's workers stay when the command that started them has ended, and may lose an experiment that
ends in the same moment as another. So nothing is believed but the experiment's commit: what has
none is queued again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.sweep.plan import Experiment

TRIES = 3  # of one experiment that ends without a commit and without a failure
DEAF = 3  # answers without a worker in a row: a busy one may miss DVC's second of patience
GRACE_S = 20.0  # for a stopped stage to end
LAST_LINES = 12

QUEUED, RUNNING, FAILED = "Queued", "Running", "Failed"


class Commit(NamedTuple):
    """A finished experiment: the commit that DVC made, and the one whose code it ran."""

    revision: str
    code: str


class Task(NamedTuple):
    """A line of `dvc queue status`; a name may have several."""

    revision: str
    name: str
    status: str


def finished(root: Path, experiments: Sequence[Experiment]) -> dict[str, Commit]:
    """The commit of each experiment that was run with its params, and with the code and inputs
    that the last commit has; of whatever commit it was derived."""
    wanted = {experiment.name: experiment.params for experiment in experiments}
    refs = git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    commits: dict[str, Commit] = {}
    pattern = r"^([0-9a-f]{40}) refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)$"
    for revision, start, rest, name in re.findall(pattern, refs, re.MULTILINE):
        if name in wanted and _yaml(root, revision, "params.yaml") == wanted[name]:
            inputs = _inputs(_yaml(root, revision, "dvc.lock"))
            # Names and hashes of files and folders; those that git lacks are left out.
            then, now = (git(root, "ls-tree", at, "--", *inputs) for at in (revision, "HEAD"))
            if then == now:
                commits[name] = Commit(revision, start + rest)
    return {name: commits[name] for name in wanted if name in commits}


def run(
    root: Path, experiments: Sequence[Experiment], workers: int, poll_s: float = 10.0
) -> dict[str, str]:
    """Run what is not finished, ``workers`` at a time; return the end of each failure's log.

    Stopped by SIGINT or SIGTERM it stops its workers first; killed, it leaves them at work, and
    the next call waits for them.
    """
    if len(finished(root, experiments)) == len(experiments):
        return {}
    _check_ready(root)
    names = {experiment.name for experiment in experiments}
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # What an earlier call left may be of another commit; what it left running is waited for.
        _forget(root, names)
        return _run(root, experiments, workers, poll_s)
    except BaseException:
        print("stopping the workers", flush=True)
        stop(root, names)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _run(
    root: Path, experiments: Sequence[Experiment], workers: int, poll_s: float
) -> dict[str, str]:
    """Queue what is missing, over and over, until all of it has a commit or has failed."""
    names = {experiment.name for experiment in experiments}
    tries: Counter[str] = Counter()
    failed: dict[str, str] = {}
    dead: set[str] = set()  # revisions of tasks whose worker was killed
    announced: set[str] = set()
    silent = 0
    while True:
        # First the queue and then the commits: what ends in between is seen at the next turn.
        tasks, n_workers = _status(root)
        done = finished(root, experiments)
        for name in done.keys() - announced:
            print(f"finished {name} ({len(done)} of {len(experiments)})", flush=True)
        announced |= done.keys()

        alive = [task for task in tasks if task.name in names and task.revision not in dead]
        waiting = {task.name for task in alive if task.status == QUEUED}
        running = {task.name: task.revision for task in alive if task.status == RUNNING}
        failures = {task.name: task.revision for task in alive if task.status == FAILED}
        for experiment in experiments:
            name = experiment.name
            if name in {*done, *waiting, *running, *failed}:
                continue
            if name in failures or tries[name] == TRIES:
                # DVC's own words where it keeps no log.
                log = _dvc(root, "queue", "logs", failures.get(name, name), may_be_late=True)
                failed[name] = "\n".join(log.splitlines()[-LAST_LINES:])
                print(f"FAILED {name}", flush=True)
            else:
                _add(root, experiment)
                tries[name] += 1
                waiting.add(name)
                print(f"queued {name}", flush=True)
        if names == {*done, *failed}:
            return failed

        silent = silent + 1 if running and not n_workers else 0
        if silent == DEAF:
            # DVC may take them for running for ever: where nobody reaps a process it keeps its id.
            _dvc(root, "queue", "kill", "--force", *running.values(), may_be_late=True)
            _forget(root, running)
            dead |= set(running.values())
            print(f"their worker was killed, so they start over: {', '.join(running)}", flush=True)
        if waiting and n_workers < workers:
            _dvc(root, "queue", "start", "--jobs", str(workers))
        time.sleep(poll_s)


def stop(root: Path, names: Collection[str]) -> None:
    """End the workers and what they run. Finished experiments stay."""
    _forget(root, names)  # first, so that no worker takes another one
    tasks, _ = _status(root)
    if running := [task.revision for task in tasks if task.status == RUNNING]:
        # As Ctrl-C does, to the stage too: the next command would leave the stage running.
        _dvc(root, "queue", "kill", *running, may_be_late=True)
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and RUNNING in {t.status for t in _status(root)[0]}:
            time.sleep(0.5)
    _dvc(root, "queue", "stop", "--kill", may_be_late=True)
    _forget(root, names)


def _add(root: Path, experiment: Experiment) -> None:
    # JSON is what Hydra's grammar reads back; unquoted text may be read as something else.
    settings = [
        f"--set-param={key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in experiment.changes.items()
    ]
    _dvc(root, "exp", "run", "--queue", "--name", experiment.name, *settings)


def _status(root: Path) -> tuple[list[Task], int]:
    """The tasks of the queue, and how many workers answered."""
    text = _dvc(root, "queue", "status")
    lines = re.findall(r"^([0-9a-f]{7,40}) +(\S+) .* (\w+) *$", text, re.MULTILINE)
    counts = re.search(r"Worker status: (\d+) active, (\d+) idle", text)
    return [Task(*line) for line in lines], sum(map(int, counts.groups())) if counts else 0


def _forget(root: Path, names: Collection[str]) -> None:
    """Take out of the queue what waits in it or has failed; a worker may have been faster."""
    tasks, _ = _status(root)
    ended = [task for task in tasks if task.name in names and task.status in (QUEUED, FAILED)]
    if ended:
        _dvc(root, "queue", "remove", *(task.revision for task in ended), may_be_late=True)


def _check_ready(root: Path) -> None:
    """Refuse a clone without a commit or an author of commits, or with a change that is in none."""
    git(root, "rev-parse", "--verify", "HEAD")
    if git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise InputError(
            Problem(
                where="git",
                got="a shallow clone",
                rule="DVC's experiments are commits, whose history it reads",
                remedy="git fetch --unshallow",
            )
        )
    git(root, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    excepted = f":(exclude){paths.SCALING.as_posix()}"
    if changed := git(root, "status", "--porcelain", "--", ".", excepted):
        raise InputError(
            Problem(
                where="git status",
                got=changed.rstrip(),
                rule="no changes: an experiment is of the last commit, and is found again by it",
                remedy="commit them, or set them aside with `git stash --include-untracked`",
            )
        )


def _inputs(lock: Mapping[str, Any]) -> list[str]:
    """dvc.yaml, and what stages read and nothing here makes: code and data that git keeps."""
    stages = lock["stages"].values()
    made = {PurePosixPath(out["path"]) for stage in stages for out in stage.get("outs", [])}
    made.add(PurePosixPath(paths.SCALING))  # which the sweep itself makes
    read = {PurePosixPath(dep["path"]) for stage in stages for dep in stage.get("deps", [])}
    given = [
        str(dep)
        for dep in sorted(read)
        if not any(dep.is_relative_to(out) or out.is_relative_to(dep) for out in made)
    ]
    return ["dvc.yaml", *given]


@cache  # a commit does not change, and dvc.lock is long
def _yaml(root: Path, revision: str, name: str) -> Any:
    return YAML(typ="safe", pure=True).load(git(root, "show", f"{revision}:./{name}"))


def git(root: Path, *arguments: str) -> str:
    """Output of a git command; a failure is refused in git's own words."""
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode != 0:
        raise InputError(_failed("git", arguments, done.stderr))
    return done.stdout


def _dvc(root: Path, *arguments: str, may_be_late: bool = False) -> str:
    """Output of a command of DVC; a failure is refused in DVC's own words.

    One that may be late may fail, such as to kill what has ended by itself meanwhile.
    """
    # `python` and `dvc` of stages and workers are those of this process.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # Into a file: the workers that DVC leaves in the background would hold a pipe open. In a
    # session of its own: Ctrl-C in the middle of queueing would leave params.yaml changed.
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
        process = subprocess.Popen(
            ["dvc", *arguments],
            cwd=root,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        printed.seek(0)
        text = printed.read()
    if code != 0 and not may_be_late:
        raise InputError(_failed("dvc", arguments, text))
    return text


def _failed(program: str, arguments: Sequence[str], text: str) -> Problem:
    return Problem(
        where=f"{program} {' '.join(arguments)}",
        got=text.strip(),
        rule="a sweep runs in a clone of the study where git and DVC work",
        remedy="mend what it names and call it again: what is finished is not run twice",
    )
