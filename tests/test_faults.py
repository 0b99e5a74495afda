"""Faults on the tiny study: after each, `dvc repro` ends in the lock of an undisturbed run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from reproduction import outputs, stages
from ruamel.yaml import YAML

from tiny_study import ROOT, Clone

pytestmark = pytest.mark.slow

STAGES = list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
STAGE = "make_dataset"  # the quickest: what DVC makes of a fault is the same at every stage
REPRO = ("dvc", "repro", "--no-run-cache")
CACHE = ".dvc/cache/files/md5"
DAY_S = 24 * 3600


@dataclass(frozen=True)
class Study:
    """A copy of the tiny study in which something goes wrong.

    Attributes:
        lock: dvc.lock of the undisturbed run.
    """

    clone: Clone
    lock: str

    def stage(self, name: str = STAGE) -> str:
        """The stage of dvc.yaml, or that of its first run."""
        return next(each for each in stages(self.clone.root) if each.partition("@")[0] == name)

    def outs(self, stage: str) -> list[str]:
        return list(outputs({stage: stages(self.clone.root)[stage]}))

    def files(self, stage: str) -> list[Path]:
        """The files that a stage made."""
        outs = [self.clone.root / out for out in self.outs(stage)]
        paths = [path for out in outs for path in (out, *sorted(out.rglob("*")))]
        return [path for path in paths if path.is_file()]

    def cached(self, path: Path) -> Path:
        """The cache object of a file of the workspace."""
        return self.clone.root / CACHE / object_name(path)

    def forget(self, stage: str) -> None:
        """Leave nothing of a stage's results in workspace and cache."""
        for path in self.files(stage):
            self.cached(path).unlink()
            path.unlink()

    def recovers(self) -> None:
        self.clone.run(*REPRO)
        assert self.clone.lock == self.lock


@pytest.fixture
def study(tiny_clone: Clone, tmp_path: Path) -> Iterator[Study]:
    yield Study(tiny_clone.copy(tmp_path), tiny_clone.lock)
    shutil.rmtree(tmp_path)


@pytest.fixture
def store(study: Study) -> Path:
    """The objects of a remote, a folder beside the clone, that holds everything."""
    folder = study.clone.root.parent / "store"
    study.clone.run("dvc", "remote", "add", "--local", "--default", "store", str(folder))
    study.clone.run("dvc", "remote", "modify", "--local", "store", "verify", "true")
    study.clone.run("dvc", "push")
    return folder / "files/md5"


def object_name(path: Path) -> Path:
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    return Path(md5[:2], md5[2:])


def again(stage: str) -> tuple[str, ...]:
    """The command that runs one stage, whether something changed or not."""
    return (*REPRO, "--force", "--single-item", stage)


def fault(
    program: str, places: list[str], nth: int, error: int = 0, reading: bool = False
) -> dict[str, str]:
    """Variables with which ``program`` meets an error, or is killed, as it writes in ``places``.

    Args:
        nth: from the how manieth file or folder on.
        error: its number; 0 for SIGKILL of the program, and of DVC with it.
        reading: whether files opened to be read count, too.
    """
    what = {"program": program, "places": places, "nth": nth, "errno": error, "reading": reading}
    folder = Path(__file__).parent / "faults"
    return {"PYTHONPATH": str(folder), "CIRCUIT_DRIFT_FAULT": json.dumps(what)}


def kill(study: Study, stage: str, killing: dict[str, str]) -> None:
    process = study.clone.start(*again(stage), **killing)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output


def flip_a_byte(path: Path) -> None:
    """As a disk may: size, mode and times stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_killed_with_half_of_its_files_written(name: str, study: Study) -> None:
    stage = study.stage(name)
    half = 1 + max(1, len(study.files(stage)) // 2)
    program = stages(study.clone.root)[stage]["cmd"].removeprefix("python ")
    kill(study, stage, fault(program, study.outs(stage), half))
    study.recovers()


@pytest.mark.parametrize(("place", "nth"), [(CACHE, 3), ("dvc.lock", 1)])
def test_dvc_is_killed(place: str, nth: int, study: Study) -> None:
    stage = study.stage()
    study.forget(stage)
    kill(study, stage, fault("dvc repro", [place], nth))
    study.recovers()


@pytest.mark.parametrize("program", [f"src/run.py {STAGE}", "dvc repro"])
def test_the_disk_is_full(program: str, study: Study) -> None:
    stage = study.stage()
    places = [*study.outs(stage), CACHE, "dvc.lock"]
    study.forget(stage)
    output = study.clone.fail(*again(stage), **fault(program, places, 3, errno.ENOSPC))
    assert os.strerror(errno.ENOSPC) in output
    study.recovers()


def test_a_damaged_cache_object_is_found_and_mended(study: Study, store: Path) -> None:
    path = study.files(study.stage())[0]
    flip_a_byte(study.cached(path))
    verify = ("circuitdrift", "verify", "--root", str(study.clone.root))
    study.clone.fail(*verify, PYTHONPATH="src")
    study.clone.run(*verify, "--repair", PYTHONPATH="src")
    assert study.cached(path).read_bytes() == path.read_bytes()
    assert (store / object_name(path)).read_bytes() == path.read_bytes()
    study.recovers()


def test_a_damaged_remote_object_is_not_pulled(study: Study, store: Path) -> None:
    stage = study.stage()
    path = study.files(stage)[0]
    flip_a_byte(store / object_name(path))
    study.forget(stage)
    study.clone.fail("dvc", "pull", stage)
    assert not path.exists()
    study.recovers()


@pytest.mark.parametrize("command", ["push", "pull"])
def test_the_remote_goes_away_in_the_middle(command: str, study: Study, store: Path) -> None:
    if command == "push":
        shutil.rmtree(store)
    else:
        study.forget(study.stage())
    place = os.path.relpath(store, study.clone.root)
    gone = fault(f"dvc {command}", [place], 3, errno.EHOSTDOWN, reading=command == "pull")
    assert os.strerror(errno.EHOSTDOWN) in study.clone.fail("dvc", command, **gone)
    study.clone.run("dvc", command)
    if command == "push":
        study.forget(study.stage())
        study.clone.run("dvc", "pull")
    study.recovers()


def test_two_repros_at_once_wait_or_say_why_not(study: Study) -> None:
    both = [study.clone.start(*again(study.stage())) for _ in range(2)]
    ended = [(process.communicate()[0], process.returncode) for process in both]
    assert any(status == 0 for _, status in ended)
    assert all("busy" in said or "lock" in said for said, status in ended if status)
    study.recovers()


def test_a_read_only_checkout_is_named(study: Study) -> None:
    command = again(study.stage())
    if os.geteuid() == 0:  # without root's right to write what permissions forbid
        rights = "-dac_override,-dac_read_search"
        command = ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command)
    root = study.clone.root
    modes = {path: path.stat().st_mode for path in (root, *root.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    output = study.clone.fail(*command)
    for path, mode in modes.items():
        path.chmod(mode)
    assert os.strerror(errno.EACCES) in output
    study.recovers()


def test_files_from_tomorrow_change_nothing(study: Study) -> None:
    """As after the clock was set back."""
    tomorrow = time.time() + DAY_S
    for path in study.clone.root.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    study.clone.run(*again(study.stage()))
    study.recovers()
