"""A sweep from its start to its end: what is finished stays, the rest is queued and run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

import psutil

from circuitdrift import paths
from circuitdrift.sweeps.dvc_queue import Queue, QueueState
from circuitdrift.sweeps.finished import finished_members, unfinished
from circuitdrift.sweeps.git import check_ready_for_experiments, head
from circuitdrift.sweeps.plan import Member, Sweep
from circuitdrift.sweeps.processes import GRACE_S
from circuitdrift.sweeps.shared import SHARED_STAGES, first_of_each

POLL_S = 2.0
ASIDE = "shared-stages"


class Display(Protocol):
    """Who is told how the sweep goes."""

    def say(self, words: str) -> None: ...

    def show(self, state: QueueState, finished: int, total: int) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What became of the members.

    Attributes:
        finished: name -> revision, of all members that are finished.
        ran: names of those that this call ran.
        failed: name -> what its log says, of those that this call ran in vain.
    """

    finished: dict[str, str]
    ran: tuple[str, ...]
    failed: dict[str, Path]


def run_sweep(root: Path, sweep: Sweep, workers: int, display: Display) -> Outcome:
    """Run the members that are not finished, ``workers`` at a time.

    Stopped by SIGINT or SIGTERM it stops its workers first. Killed, it leaves them at work; the
    next call finds them and waits for them.

    Raises:
        InputError: if the clone is not ready for experiments.
        QueueError: if DVC refuses a member, or a shared stage fails.
        KeyboardInterrupt: when stopped.
    """
    check_ready_for_experiments(root, besides=paths.SCALING)
    return _Runner(root, sweep, workers, display, Queue(root)).run()


def workers_that_fit(sweep: Sweep) -> int:
    """As many as there are cores for their threads, and memory; at least one."""
    threads = max(member.params.compute.threads for member in sweep.members)
    by_cores = _cores() // threads
    by_memory = int(psutil.virtual_memory().available / (sweep.memory_gb * 1e9))
    return max(1, min(by_cores, by_memory, len(sweep.members)))


def _cores() -> int:
    """Those that this process may use, where the system says so (macOS does not)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class _Runner:
    root: Path
    sweep: Sweep
    workers: int
    display: Display
    queue: Queue

    def run(self) -> Outcome:
        if dropped := self.queue.clear_dead(self.names):
            self._say_dropped("left by workers that were killed", dropped)
        before = self._finished()
        missing = unfinished(self.sweep, before)
        if not missing:
            return Outcome(before, (), {})
        with self._stopping():
            revisions = self._run_all(missing, before)
        after = self._finished()
        return Outcome(
            finished=after,
            ran=tuple(member.name for member in missing if member.name in after),
            failed={
                member.name: self.queue.log(revisions[member.name])
                for member in unfinished(self.sweep, after)
                if member.name in revisions
            },
        )

    @property
    def names(self) -> set[str]:
        return {member.name for member in self.sweep.members}

    def _say_dropped(self, why: str, names: list[str]) -> None:
        ours = [name for name in names if name in self.names]
        others = [name for name in names if name not in self.names]
        if ours:
            self.display.say(f"{why}, and will start over: {', '.join(ours)}")
        if others:
            self.display.say(f"{why}, not of this sweep, to be queued again: {', '.join(others)}")

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """On SIGINT, SIGTERM or an error the workers are stopped before anything else."""

        def interrupt(_number: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            yield
        except BaseException:
            self.display.say("stopping the workers")
            if running := self.queue.stop(self.names):
                self._say_dropped("stopped", running)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def _finished(self) -> dict[str, str]:
        return finished_members(self.root, self.sweep)

    def _run_all(self, missing: list[Member], before: dict[str, str]) -> dict[str, str]:
        """Returns the members' revisions in the queue, by name."""
        if not self.queue.workers():
            self._prepare(before)
        self.queue.drop_outdated([member.name for member in missing], head(self.root))
        revisions = self._run(missing)
        if lost := self._lost(revisions):
            names = ", ".join(member.name for member in lost)
            self.display.say(f"ended well, but DVC lost their commits; once more: {names}")
            revisions |= self._run(lost)
        self._end_workers()
        return revisions

    def _prepare(self, finished: dict[str, str]) -> None:
        """Run once what the missing members share, before workers would run it side by side."""
        done = [member for member in self.sweep.members if member.name in finished]
        for member in first_of_each(self.root, unfinished(self.sweep, finished), done):
            stages = ", ".join(SHARED_STAGES)
            self.display.say(f"making ready what experiments share: {stages}")
            self.queue.run_aside(ASIDE, member, list(SHARED_STAGES))

    def _run(self, members: list[Member]) -> dict[str, str]:
        """Queue what is not in the queue already, and wait until all of it has been run."""
        self.queue.forget_failed([member.name for member in members])
        waiting = self.queue.state().names
        for member in members:
            if member.name not in waiting:
                self.queue.add(member)
                self.display.say(f"queued {member.name}")
        self.queue.start_workers(self.workers)
        return self._wait()

    def _wait(self) -> dict[str, str]:
        """Until no member waits or runs, or no worker is left."""
        revisions: dict[str, str] = {}
        open_before: set[str] | None = None
        while True:
            state = self.queue.state()
            revisions |= {**state.queued, **state.running}
            still_open = state.names & self.names
            if still_open != open_before:
                finished = self._finished()
                for name in sorted((open_before or set()) - still_open):
                    self.display.say(f"{'finished' if name in finished else 'FAILED'} {name}")
                open_before = still_open
            self.display.show(state, len(finished), len(self.sweep.members))
            if not still_open:
                return revisions
            if not self.queue.workers():
                self.queue.clear_dead(self.names)
                return revisions
            time.sleep(POLL_S)

    def _lost(self, revisions: dict[str, str]) -> list[Member]:
        """Experiments that ended well and are not there: where two end in the same moment, DVC
        may fail to fetch the commit of one, without a word."""
        return [
            member
            for member in unfinished(self.sweep, self._finished())
            if member.name in revisions and self.queue.ended_well(revisions[member.name])
        ]

    def _end_workers(self) -> None:
        """Workers end by themselves when the queue is empty; others' experiments may keep them."""
        deadline = time.monotonic() + 2 * GRACE_S
        while self.queue.workers() and time.monotonic() < deadline:
            if self.queue.state().names:
                return
            time.sleep(POLL_S / 4)
        if not self.queue.state().names:
            self.queue.stop(self.names)
