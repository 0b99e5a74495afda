"""A cache object that is no longer what its name says, when it is all that there is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reliability.clones import Clone
from reliability.finished import Finished, object_of, object_path
from reliability.outcomes import (
    CLEAR_ERROR,
    MISSED,
    SAME_LOCK,
    SILENT,
    FaultMissedError,
    Outcome,
    Scenario,
    errors,
    recovered,
)
from reliability.verification import finds, verify

ARTIFACT = "models/checkpoints/mapped-0"
FILE = f"{ARTIFACT}/100/adapter_model.safetensors"
Damage = Callable[[Path], None]


def flip_bits(path: Path) -> None:
    """Invert one byte in the middle; size and mode stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    _rewrite(path, bytes(content))


def truncate(path: Path) -> None:
    """Leave the first half."""
    content = path.read_bytes()
    _rewrite(path, content[: len(content) // 2])


def _rewrite(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def make_unreadable(path: Path) -> None:
    path.chmod(0)


def obeying_permissions(command: tuple[str, ...]) -> tuple[str, ...]:
    """``command`` without root's right to read and write what permissions forbid."""
    if os.geteuid() != 0:
        return command
    forgone = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={forgone}", f"--inh-caps={forgone}", *command)


@dataclass(frozen=True)
class DamagedObject:
    """An artifact is gone from the workspace, and its object in the cache is damaged."""

    says: str
    damage: Damage
    error: str = ""
    quick: bool = False

    @property
    def scenario(self) -> Scenario:
        fault = f"cache object {self.says}"
        return Scenario(fault, "dvc checkout", self.run, says=self.error, quick=self.quick)

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone = study.copy(parent)
        damaged = object_of(clone.root, FILE)
        shutil.rmtree(clone.root / ARTIFACT)
        self.damage(damaged)
        checkout = clone.start(*obeying_permissions(("dvc", "checkout", ARTIFACT)))
        output, _ = checkout.communicate()
        others = [name for name in study.lost(clone) if not name.startswith(f"{ARTIFACT}/")]
        if checkout.returncode == 0:
            return judged_silent(study, clone, others)
        message = errors(output, clone)
        damaged.unlink(missing_ok=True)  # the remedy: a damaged object is worth nothing
        return recovered(study, clone, CLEAR_ERROR, message, others)


def judged_silent(study: Finished, clone: Clone, lost: list[str]) -> Outcome:
    """The outcome where DVC brought an artifact back, or looked at it, without a complaint."""
    if study.same(clone):
        return Outcome(SAME_LOCK, "", tuple(lost))
    if not verify(study.copy(clone.root.parent / "whole")):
        raise FaultMissedError("circuitdrift verify finds fault with the undisturbed study, too")
    word = SILENT if finds(clone, FILE) else MISSED
    damaged = object_path(clone.root, study.files[FILE])
    damaged.unlink()  # what a person does who has been told
    shutil.rmtree(clone.root / ARTIFACT)
    return recovered(study, clone, word, "", lost)


@dataclass(frozen=True)
class DamagedOutput:
    """A file of the workspace changes and keeps its size, inode and times, as a bad disk has it."""

    @property
    def scenario(self) -> Scenario:
        point = "dvc status; size and times are as before"
        return Scenario("output with a byte inverted", point, self.run, says="modified")

    def run(self, study: Finished, parent: Path) -> Outcome:
        clone = study.copy(parent)
        clone.do("dvc", "status")  # DVC has seen the file, and remembers its size and times
        before = (clone.root / FILE).stat()
        flip_bits(clone.root / FILE)
        os.utime(clone.root / FILE, ns=(before.st_atime_ns, before.st_mtime_ns))
        if "modified" not in (said := clone.do("dvc", "status")):
            return judged_silent(study, clone, [])
        clone.do("dvc", "checkout", "--force", ARTIFACT)
        return recovered(study, clone, CLEAR_ERROR, errors(said, clone), study.lost(clone))


SCENARIOS = tuple(
    each.scenario
    for each in (
        DamagedObject("with a byte inverted", flip_bits, quick=True),
        DamagedObject("truncated", truncate),
        DamagedObject("unreadable", make_unreadable, error=ARTIFACT, quick=True),
        DamagedOutput(),
    )
)
