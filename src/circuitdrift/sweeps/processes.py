"""Processes and what they started, ended together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

# Seconds that processes get to end by themselves before they are killed.
GRACE_S = 10
POLL_S = 0.1


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
        _signal(process.terminate)
    for process in _alive_after(asked, GRACE_S):
        _signal(process.kill)
    _alive_after(asked, GRACE_S)


def _alive_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended when the time is up."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return alive


def is_alive(process: psutil.Process) -> bool:
    """A process that has ended keeps its number until its parent asks how, and in a container
    nobody may ever ask."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
