"""Processes and what they started, ended together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psutil

# Seconds that processes get to end by themselves before they are killed.
GRACE_S = 10


def with_children(process: psutil.Process) -> list[psutil.Process]:
    """The process, its children and theirs; none where it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def end(processes: Iterable[psutil.Process]) -> None:
    """Ask processes to end, and kill those that do not."""
    asked = list(processes)
    for process in asked:
        _signal(process, process.terminate)
    _, alive = psutil.wait_procs(asked, timeout=GRACE_S)
    for process in alive:
        _signal(process, process.kill)
    psutil.wait_procs(alive, timeout=GRACE_S)


def _signal(process: psutil.Process, send: Callable[[], None]) -> None:
    if process.is_running():
        try:
            send()
        except psutil.NoSuchProcess:
            return
