"""A temporary clone of the study with small params, and the commands that tests give in it."""

from __future__ import annotations

from pathlib import Path

from reliability.clones import TINY as SMALL
from reliability.clones import Clone, commit, environment, finished, stages_run
from reliability.clones import make_clone as make_clone_of

__all__ = [
    "RUNS",
    "SMALL",
    "Clone",
    "commit",
    "environment",
    "finished",
    "make_clone",
    "stages_run",
]

ROOT = Path(__file__).resolve().parents[1]
RUNS = ("mapped-0", "shuffled-0")


def make_clone(root: Path) -> Clone:
    """Copy what git tracks or would track, without results; commit it with small params."""
    return make_clone_of(ROOT, root, SMALL)
