"""The checkpoints of a run as they lie on disk."""

from __future__ import annotations

from pathlib import Path

from circuitdrift.errors import InputError, Problem


def checkpoints_in(directory: Path) -> list[Path]:
    """Adapter directories of a run, models/checkpoints/<run>, the earliest first.

    Raises:
        InputError: if there is none.
    """
    if found := sorted(path.parent for path in directory.glob("*/progress.json")):
        return found
    problem = Problem(
        where=directory.as_posix(),
        got="no checkpoint",
        rule="a run is fine-tuned before its checkpoints are used",
        remedy=f"run `dvc repro finetune@{directory.name}`, or `dvc pull` where a remote holds it",
    )
    raise InputError(problem)
