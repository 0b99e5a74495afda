"""Results of runs that the study no longer has.

An aggregating stage depends on a directory with a member per run. DVC does not remove the members
of runs that were taken out of params.yaml, and would count them in the stage's inputs: the same
study would get another dvc.lock here than in a fresh clone.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from circuitdrift.identifiers import Run


def remove_other_runs(directory: Path, runs: Sequence[Run]) -> list[Path]:
    """Remove the members of ``directory`` that are named by a run which is not one of ``runs``.

    What DVC keeps stays in its cache, and comes back with its run; what git keeps, in git.

    Returns:
        what was removed.
    """
    removed = []
    for member in sorted(directory.iterdir()):
        try:
            run = Run.parse(member.stem)
        except ValueError:
            continue
        if run not in runs:
            if member.is_dir():
                shutil.rmtree(member)
            else:
                member.unlink()
            removed.append(member)
    return removed
