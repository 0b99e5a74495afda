"""What `circuitdrift verify` says of a clone: the one place where faults ask it."""

from __future__ import annotations

from reliability.clones import Clone
from reliability.outcomes import FaultMissedError

# The clone's own code: the installed command may be of another checkout.
_COMMAND = "import sys; sys.path.insert(0, 'src'); from circuitdrift.cli import app; app()"


def verify(clone: Clone) -> bool:
    """Whether `circuitdrift verify` finds the study whole."""
    return _verified(clone)[0]


def finds(clone: Clone, file: str) -> bool:
    """Whether `circuitdrift verify` says that something is wrong with ``file``."""
    whole, said = _verified(clone)
    return not whole and file in said


def _verified(clone: Clone) -> tuple[bool, str]:
    process = clone.start("python", "-c", _COMMAND, "verify")
    said, _ = process.communicate()
    if process.returncode not in (0, 1):
        raise FaultMissedError(f"circuitdrift verify cannot be asked:\n{said}")
    return process.returncode == 0, said
