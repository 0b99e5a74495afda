"""What lies around the study fails: the disk, permissions, the clock; or it is run twice."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from reliability.damage import obeying_permissions
from reliability.finished import Finished, make_stale
from reliability.injection import limiting, turning_back
from reliability.kills import REPRO
from reliability.outcomes import (
    CLEAR_ERROR,
    SAME_LOCK,
    FaultMissedError,
    Outcome,
    Scenario,
    errors,
    failing,
    recovered,
)

STAGE = "attribute@mapped-0"
PROGRAM = "src/run.py attribute mapped-0"
DAY = 24 * 3600


def disk_full_for_the_stage(study: Finished, parent: Path) -> Outcome:
    """Half of what the stage writes still fits."""
    return _disk_full(study, parent, share_left=0.5)


def disk_full_for_dvc(study: Finished, parent: Path) -> Outcome:
    """The stage's output still fits, DVC's copy of it in the cache does not."""
    return _disk_full(study, parent, share_left=1.5)


def _disk_full(study: Finished, parent: Path, share_left: float) -> Outcome:
    needed = sum(
        (study.clone.root / name).stat().st_size
        for name in study.files
        if name.startswith("data/attributions/mapped-0/")
    )
    with small_disk(parent / "disk") as disk:
        clone = study.copy(disk)
        clone = replace(clone, environment={**clone.environment, **_elsewhere(parent)})
        make_stale(clone, STAGE)
        ballast = fill(disk, leave=int(share_left * needed))
        output = failing(clone.start(*REPRO))
        lost = study.lost(clone, STAGE)
        ballast.unlink()
        return recovered(study, clone, CLEAR_ERROR, errors(output, clone), lost)


def _elsewhere(parent: Path) -> dict[str, str]:
    """DVC's own state and temporary files on another disk than the study's."""
    return {"DVC_SITE_CACHE_DIR": str(parent / "dvc-site"), "TMPDIR": str(parent)}


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 1 GB in memory.

    Raises:
        FaultMissedError: without the right to mount it.
    """
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place))
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        raise FaultMissedError(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(("umount", str(place)), check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves ``leave`` bytes of a disk free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leave)
    return ballast


def no_large_files(study: Finished, parent: Path) -> Outcome:
    """What a full disk and a quota come to where nothing may be mounted: a write that fails."""
    clone = study.copy(parent)
    make_stale(clone, STAGE)
    output = failing(limiting(clone, PROGRAM, size=10_000).start(*REPRO))
    lost = study.lost(clone, STAGE)
    return recovered(study, clone, CLEAR_ERROR, errors(output, clone), lost)


def read_only(study: Finished, parent: Path) -> Outcome:
    """Nothing below the clone may be written."""
    clone = study.copy(parent)
    make_stale(clone, STAGE)
    with write_protected(clone.root):
        output = failing(clone.start(*obeying_permissions(REPRO)))
    return recovered(study, clone, CLEAR_ERROR, errors(output, clone), study.lost(clone, STAGE))


@contextmanager
def write_protected(root: Path) -> Iterator[None]:
    modes = {
        path: path.stat().st_mode for path in (root, *root.rglob("*")) if not path.is_symlink()
    }
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def run_twice_at_once(study: Finished, parent: Path) -> Outcome:
    """Two `dvc repro` of one clone are started together."""
    clone = study.copy(parent)
    make_stale(clone, STAGE)
    both = [clone.start(*REPRO) for _ in range(2)]
    ended = [(process.communicate()[0], process.returncode) for process in both]
    said = [errors(output, clone) for output, status in ended if status != 0]
    word = CLEAR_ERROR if said else SAME_LOCK
    return recovered(study, clone, word, " ".join(said), study.lost(clone, STAGE))


def clock_jumps_back(study: Finished, parent: Path) -> Outcome:
    """Every file is a day younger than now, and the clock falls back a day while stages run."""
    clone = study.copy(parent)
    make_stale(clone, STAGE)
    tomorrow = time.time() + DAY
    for path in clone.root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (tomorrow, tomorrow))
    turning_back(clone, readings=200, seconds=DAY).do(*REPRO)
    return recovered(study, clone, SAME_LOCK, "", [])


SCENARIOS = (
    Scenario(
        "disk full", f"{STAGE} writes its output", disk_full_for_the_stage, says="No space left"
    ),
    Scenario(
        "disk full", f"DVC caches the output of {STAGE}", disk_full_for_dvc, says="No space left"
    ),
    Scenario(
        "a write fails",
        f"{STAGE}: a file of over 10,000 bytes",
        no_large_files,
        says="File too large",
        quick=True,
    ),
    Scenario(
        "read-only checkout",
        f"dvc repro, {STAGE} to run",
        read_only,
        says="Permission denied",
        quick=True,
    ),
    Scenario(
        "dvc repro twice at once",
        f"{STAGE} to run",
        run_twice_at_once,
        says="is busy|Unable to acquire lock",
        quick=True,
    ),
    Scenario("the clock jumps back", f"a day, in {STAGE} and DVC", clock_jumps_back),
)
