"""Faults put into a process from outside: Python runs this file at its start where PYTHONPATH
names its folder. What to do stands in the environment (see reliability.injection); a process
that is not the one meant runs as ever.
"""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Hook = Callable[[str, tuple[Any, ...]], None]

_WRITING = os.O_WRONLY | os.O_RDWR


def main() -> None:
    fault: dict[str, Any] = json.loads(os.environ.get("CIRCUIT_DRIFT_FAULT", "{}"))
    if fault and fault["program"] in " ".join(sys.orig_argv):
        INSTALL[fault["kind"]](fault)


def kill_at_event(fault: dict[str, Any]) -> None:
    """SIGKILL the whole process group at the n-th time that a path is opened to write or put in
    place."""
    met = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal met
        if event == fault["event"] and fnmatch.fnmatch(_written(event, arguments), fault["path"]):
            met += 1
            if met == fault["nth"]:
                os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def _written(event: str, arguments: tuple[Any, ...]) -> str:
    """The path that an event is about, from the working directory; '' where nothing is written."""
    if event == "os.rename":
        path = arguments[1]
    else:
        path, mode, flags = arguments
        if not (set(mode or "") & set("wax+") or (flags or 0) & _WRITING):
            return ""
    return os.path.relpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""


def kill_beyond_size(fault: dict[str, Any]) -> None:
    """Let the kernel end the process in the middle of the write that would make a file larger."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    refuse_beyond_size(fault)


def refuse_beyond_size(fault: dict[str, Any]) -> None:
    """Let a write that would make a file larger fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], fault["bytes"]))


def turn_back_the_clock(fault: dict[str, Any]) -> None:
    """The clock goes right for some readings, then jumps back."""
    right, right_ns, left = time.time, time.time_ns, fault["readings"]

    def behind() -> int:
        nonlocal left
        left -= 1
        return 0 if left >= 0 else int(fault["seconds"])

    time.time = lambda: right() - behind()
    time.time_ns = lambda: right_ns() - behind() * 10**9


def note_unpickled(fault: dict[str, Any]) -> None:
    """Write down every class that an unpickler looks up, with the program."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            with open(fault["log"], "a", encoding="utf-8") as log:  # noqa: PTH123
                log.write(f"{'.'.join(arguments)} in {' '.join(sys.orig_argv)}\n")

    sys.addaudithook(hook)


INSTALL = {
    install.__name__: install
    for install in (
        kill_at_event,
        kill_beyond_size,
        refuse_beyond_size,
        turn_back_the_clock,
        note_unpickled,
    )
}

main()
