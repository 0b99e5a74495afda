"""DVC's queue of experiments: what is in it, who works on it, and how it is stopped.

What DVC's commands do is left to them. Which experiments wait and run is read through DVC's own
objects, which the command line has no machine-readable answer for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
from dvc.repo import Repo

from circuitdrift.sweeps.git import experiments
from circuitdrift.sweeps.plan import Member
from circuitdrift.sweeps.processes import end, is_alive, with_children


class QueueError(RuntimeError):
    """A command of DVC failed; the message is DVC's own."""


@dataclass(frozen=True)
class QueueState:
    """Experiments by name, each with its revision in the queue (`dvc queue status`)."""

    queued: Mapping[str, str]
    running: Mapping[str, str]

    @property
    def names(self) -> set[str]:
        return {*self.queued, *self.running}


class Queue:
    """The queue of the clone at ``root``. The clone's temporary folder holds all of it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._repo = Repo(str(self.root))
        self._folder = Path(str(self._repo.tmp_dir)) / "exps"
        # As DVC names the workers of a queue by its folder (LocalCeleryQueue._spawn_worker).
        folder_hash = sha256(str(self._folder / "celery").encode()).hexdigest()[:6]
        self._node_prefix = f"dvc-exp-{folder_hash}-"

    def state(self) -> QueueState:
        queue = self._repo.experiments.celery_queue
        # Queued first: what starts meanwhile is then seen twice, and not missed.
        queued = {entry.name or entry.stash_rev: entry.stash_rev for entry in queue.iter_queued()}
        running = {entry.name or entry.stash_rev: entry.stash_rev for entry in queue.iter_active()}
        return QueueState(queued, running)

    def add(self, member: Member) -> None:
        """Put an experiment at the end of the queue.

        Raises:
            QueueError: if DVC refuses it.
        """
        self._dvc("exp", "run", "--queue", "--name", member.name, *_set_params(member))

    def run_aside(self, name: str, member: Member, stages: list[str]) -> None:
        """Run stages as an experiment would, at once, and keep only what the run cache keeps.

        Raises:
            QueueError: if a stage fails.
        """
        if any(experiment.name == name for experiment in experiments(self.root)):
            self._dvc("exp", "remove", name)  # of a call that was stopped
        folders = self._folder / "standalone"
        before = set(folders.glob("tmp*"))
        try:
            self._dvc("exp", "run", "--temp", "--name", name, *_set_params(member), *stages)
        finally:
            for folder in set(folders.glob("tmp*")) - before:
                shutil.rmtree(folder, ignore_errors=True)
        self._dvc("exp", "remove", name)

    def start_workers(self, count: int) -> None:
        """Start workers in the background, as many as are missing to ``count``."""
        self._dvc("queue", "start", "--jobs", str(count))

    def workers(self) -> list[psutil.Process]:
        """The living processes that take experiments from this queue."""
        return [
            process
            for process in psutil.process_iter()
            if self._is_worker(process) and is_alive(process)
        ]

    def stop(self, ours: Collection[str]) -> list[str]:
        """Stop every worker and the experiments that they run, and clear what they leave behind.

        Finished experiments stay. Those that wait stay queued; of those that were running ``ours``
        are dropped, and would start over, and others stay in the queue as failed.

        Returns:
            names of the experiments that were running.
        """
        running = self.state().running
        end([each for worker in self.workers() for each in with_children(worker)])
        self._forget(running, ours)
        return sorted(running)

    def clear_dead(self, ours: Collection[str]) -> list[str]:
        """Do the same with experiments that count as running though no worker lives.

        Returns:
            their names.
        """
        if self.workers():
            return []
        running = self.state().running
        self._forget(running, ours)
        return sorted(running)

    def drop_outdated(self, names: Iterable[str], baseline: str) -> list[str]:
        """Take experiments out of the queue that wait there since another commit.

        Returns:
            their names.
        """
        entries = self._repo.experiments.celery_queue.iter_queued()
        outdated = sorted(
            {entry.name for entry in entries if entry.baseline_rev != baseline}.intersection(names)
        )
        if outdated:
            self._dvc("queue", "remove", *outdated)
        return outdated

    def forget_failed(self, names: Iterable[str]) -> None:
        """Take failed experiments out of the queue; their logs stay."""
        queue = self._repo.experiments.celery_queue
        failed = {done.entry.name for done in queue.iter_failed()}
        if named := sorted(failed.intersection(names)):
            self._dvc("queue", "remove", *named)

    def ended_well(self, revision: str) -> bool:
        """Whether the process that ran an experiment says so."""
        described = self._processes.get(revision)
        return described is not None and described.returncode == 0

    def _forget(self, dropped: Mapping[str, str], ours: Collection[str]) -> None:
        """End what still runs of experiments that no worker waits for, make DVC see it, and remove
        the folders that they ran in; take ``ours`` out of the queue."""
        for revision in dropped.values():
            end(self._executors(revision))
            described = self._processes.get(revision)
            if described is not None and described.returncode is None:
                described.returncode = -1  # as DVC notes a process that it finds gone
                self._processes[revision] = described
        if unmarked := sorted(set(dropped).intersection(self.state().running)):
            self._dvc("queue", "kill", "--force", *unmarked)
        self.forget_failed(set(dropped).intersection(ours))
        for folder in self._folder.glob("tmp*"):
            shutil.rmtree(folder, ignore_errors=True)

    def log(self, revision: str) -> Path:
        """What an experiment prints."""
        return self._folder / "run" / revision / f"{revision}.out"

    @property
    def _processes(self) -> Any:
        """DVC's notes on the processes that run experiments, by revision."""
        return self._repo.experiments.celery_queue.proc

    def _is_worker(self, process: psutil.Process) -> bool:
        try:
            return any(argument.startswith(self._node_prefix) for argument in process.cmdline())
        except psutil.Error:
            return False

    def _executors(self, revision: str) -> list[psutil.Process]:
        """The process that runs an experiment, and its children."""
        described = self._processes.get(revision)
        if described is None:
            return []
        try:
            process = psutil.Process(described.pid)
            if "exec-run" not in process.cmdline():  # another process has its number by now
                return []
            return with_children(process)
        except psutil.Error:
            return []

    def _dvc(self, *arguments: str) -> None:
        """Run a command of DVC.

        Raises:
            QueueError: with what it printed, if it fails.
        """
        # Into a file: the workers that it leaves in the background would hold a pipe open.
        with TemporaryFile("w+", encoding="utf-8") as printed:
            process = psutil.Popen(
                ["dvc", *arguments],
                cwd=self.root,
                env=worker_environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait()
            except KeyboardInterrupt:
                end(with_children(process))
                raise
            printed.seek(0)
            if code != 0:
                raise QueueError(f"dvc {' '.join(arguments)}\n{printed.read()}".strip())


def worker_environment() -> dict[str, str]:
    """`python` and `dvc` of stages and workers are those that this process was started with."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path}


def hydra(value: Any) -> str:
    """A value as `dvc exp run --set-param` reads it.

    Strings are quoted: what Hydra's grammar would read in them stays text. In a quoted string a
    backslash is itself, except before a quote.
    """
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)(?='|$)", r"\1\1", value).replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(hydra, value))}]"
    return json.dumps(value)


def _set_params(member: Member) -> list[str]:
    return [f"--set-param={key}={hydra(value)}" for key, value in member.changes.items()]
