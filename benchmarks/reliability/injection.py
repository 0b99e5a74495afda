"""Which faults `injected/sitecustomize.py` puts into which process, said in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from reliability.clones import Clone

_INJECTED = Path(__file__).resolve().parent / "injected"

Event = Literal["open", "os.rename"]
"""A path is opened to be written; something is moved to a path."""


def killing(clone: Clone, program: str, event: Event, path: str, nth: int = 1) -> Clone:
    """A clone whose ``program`` and all that runs with it are killed at an event.

    Args:
        program: part of the command line, such as ``src/run.py compare``.
        path: a pattern of the path written, from the clone's root.
        nth: the how manieth such event.
    """
    return _with(clone, program, kind="kill_at_event", event=event, path=path, nth=nth)


def killing_beyond(clone: Clone, program: str, size: int) -> Clone:
    """``program`` is ended by the kernel within the write that takes a file over ``size`` bytes."""
    return _with(clone, program, kind="kill_beyond_size", bytes=size)


def limiting(clone: Clone, program: str, size: int) -> Clone:
    """``program`` can make no file larger than ``size`` bytes."""
    return _with(clone, program, kind="refuse_beyond_size", bytes=size)


def turning_back(clone: Clone, readings: int, seconds: int) -> Clone:
    """In every process the clock jumps back after so many readings."""
    return _with(clone, "", kind="turn_back_the_clock", readings=readings, seconds=seconds)


def noting_unpickled(clone: Clone, log: Path) -> Clone:
    """Every class that any process unpickles is written to ``log``."""
    return _with(clone, "", kind="note_unpickled", log=str(log))


def _with(clone: Clone, program: str, **fault: Any) -> Clone:
    before = clone.environment.get("PYTHONPATH")
    path = os.pathsep.join(filter(None, [str(_INJECTED), before]))
    fault_text = json.dumps({"program": program, **fault})
    return clone.with_environment(PYTHONPATH=path, CIRCUIT_DRIFT_FAULT=fault_text)
