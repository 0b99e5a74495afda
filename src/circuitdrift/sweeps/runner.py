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
from circuitdrift.sweeps.plan import Sweep
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
    queue = Queue(root)
    if dropped := queue.clear_dead():
        display.say(f"left by workers that were killed, and started over: {', '.join(dropped)}")
    before = finished_members(root, sweep)
    missing = unfinished(sweep, before)
    if not missing:
        return Outcome(before, (), {})
    with _stopping(queue, display):
        names = [member.name for member in missing]
        queue.forget_failed(names)
        queue.drop_outdated(names, head(root))
        waiting = queue.state().names
        if not queue.workers():
            _prepare(root, queue, sweep, before, display)
        for member in missing:
            if member.name not in waiting:
                queue.add(member)
                display.say(f"queued {member.name}")
        queue.start_workers(workers)
        revisions = _wait(root, queue, sweep, display)
        _end_workers(queue)
    after = finished_members(root, sweep)
    ran = [member.name for member in missing if member.name in after]
    failed = {
        member.name: queue.log(revisions[member.name])
        for member in unfinished(sweep, after)
        if member.name in revisions
    }
    return Outcome(after, tuple(ran), failed)


def workers_that_fit(sweep: Sweep) -> int:
    """As many as there are cores for their threads, and memory; at least one."""
    threads = max(member.params.compute.threads for member in sweep.members)
    by_cores = len(os.sched_getaffinity(0)) // threads
    by_memory = int(psutil.virtual_memory().available / (sweep.memory_gb * 1e9))
    return max(1, min(by_cores, by_memory, len(sweep.members)))


def _prepare(
    root: Path, queue: Queue, sweep: Sweep, finished: dict[str, str], display: Display
) -> None:
    """Run once what the missing members share, before workers would run it side by side."""
    done = [member for member in sweep.members if member.name in finished]
    for member in first_of_each(root, unfinished(sweep, finished), done):
        display.say(f"making ready what experiments share: {', '.join(SHARED_STAGES)}")
        queue.run_aside(ASIDE, member, list(SHARED_STAGES))


def _wait(root: Path, queue: Queue, sweep: Sweep, display: Display) -> dict[str, str]:
    """Until no member waits or runs.

    Returns:
        the members' revisions in the queue, by name.
    """
    names = {member.name for member in sweep.members}
    revisions: dict[str, str] = {}
    open_before: set[str] | None = None
    while True:
        state = queue.state()
        revisions |= {**state.queued, **state.running}
        still_open = state.names & names
        if still_open != open_before:
            finished = finished_members(root, sweep)
            for name in sorted((open_before or set()) - still_open):
                display.say(f"{'finished' if name in finished else 'FAILED'} {name}")
            open_before = still_open
        display.show(state, len(finished), len(names))
        if not still_open:
            return revisions
        if not queue.workers():
            queue.clear_dead()
            return revisions
        time.sleep(POLL_S)


def _end_workers(queue: Queue) -> None:
    """Workers end by themselves when the queue is empty; others' experiments may keep them."""
    deadline = time.monotonic() + 2 * GRACE_S
    while queue.workers() and time.monotonic() < deadline:
        if queue.state().names:
            return
        time.sleep(POLL_S / 4)
    if not queue.state().names:
        queue.stop()


@contextmanager
def _stopping(queue: Queue, display: Display) -> Iterator[None]:
    """On SIGINT and SIGTERM the workers are stopped before anything else."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        display.say("stopping the workers")
        running = queue.stop()
        if running:
            display.say(f"would start over: {', '.join(running)}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
