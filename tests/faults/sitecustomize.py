"""A fault put into a process from outside: Python runs this file at its start where PYTHONPATH
names its folder. CIRCUIT_DRIFT_FAULT says which; a process that is not the one meant runs as ever.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from typing import Any

fault: dict[str, Any] = json.loads(os.environ.get("CIRCUIT_DRIFT_FAULT", "{}"))
uses = itertools.count(1)


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Strike from the n-th time on that something is opened or made in one of the places."""
    if event not in ("open", "os.mkdir", "os.rename"):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if event == "open" and not (fault["reading"] or arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    if isinstance(path, str | os.PathLike) and concerns(os.path.relpath(path)):
        if next(uses) < fault["nth"]:
            return
        if not fault["errno"]:
            os.killpg(0, signal.SIGKILL)
        raise OSError(fault["errno"], os.strerror(fault["errno"]), path)


def concerns(path: str) -> bool:
    """Whether a path, from the clone's root, is one of the places, in one, or half of one."""
    return any(
        path == place or path.startswith((f"{place}/", f"{place}.partial-"))
        for place in fault["places"]
    )


if fault and fault["program"] in " ".join(sys.orig_argv):
    sys.addaudithook(hook)
