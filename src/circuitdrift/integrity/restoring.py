"""Bringing copies back. What is written is hashed before it takes its place and after.

What stood in a copy's place is moved aside, whatever it was: it may be somebody's work, or the only
copy of another object, which a swap of two leaves in the wrong place. Nothing is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from circuitdrift.artifacts import replacing
from circuitdrift.integrity.git import committed_bytes
from circuitdrift.integrity.hashing import found_at
from circuitdrift.integrity.listings import Listing, listing_bytes
from circuitdrift.integrity.objects import Area, Copy, Finding, State, md5_part, state_of
from circuitdrift.integrity.pipeline import Study
from circuitdrift.integrity.remote import Remote, described
from circuitdrift.integrity.repair import Step, recomputed_by

Write = Callable[[Path], object]


class OtherBytesError(Exception):
    """A source that does not hold what it was taken for."""


@dataclass(frozen=True)
class Repaired:
    """What came of a repair: a line for each copy brought back, a finding for each that was not."""

    restored: tuple[str, ...]
    lost: tuple[Finding, ...]


@dataclass(frozen=True)
class Restorer:
    """Writes copies of a study's objects."""

    study: Study
    listings: Mapping[str, Listing]
    remote: Remote | None

    def repair(self, steps: Sequence[Step]) -> Repaired:
        """Take each step: bring its copy back, or move it aside, or say that it is lost."""
        restored, lost = [], []
        for step in steps:
            line, reasons = self._restore(step)
            if line:
                restored.append(line)
            else:
                aside = self._set_aside(step.copy) if step.set_aside else ""
                lost.append(_loss(step, reasons, aside))
        return Repaired(tuple(restored), tuple(lost))

    def _restore(self, step: Step) -> tuple[str, list[str]]:
        """What the copy was brought back from, nothing if it was not, and why others did not do."""
        reasons: list[str] = []
        for source, write in self._sources(step):
            # A remote raises errors of its own libraries: a task keeps them as values.
            with ThreadPoolExecutor(1) as pool:
                task = pool.submit(self._replace, step.copy, write)
            if (error := task.exception()) is None:
                aside = f"; what stood there is now {task.result()}" if task.result() else ""
                return f"{step.copy.path}: brought back from {source}{aside}", reasons
            reasons.append(f"{source}: {described(error)}")
        return "", reasons

    def _sources(self, step: Step) -> Iterator[tuple[str, Write]]:
        for source in step.sources:
            yield source.area.value, partial(self._copy, source)
        if step.from_listing:
            content = listing_bytes(self.listings[step.copy.oid])
            yield "its listing", lambda path: path.write_bytes(content)

    def _copy(self, source: Copy, to: Path) -> None:
        if source.area is Area.REMOTE:
            assert self.remote is not None
            self.remote.fetch(source.oid, to)
        elif source.area is Area.GIT:
            to.write_bytes(committed_bytes(self.study.root, source.path) or b"")
        else:
            shutil.copyfile(self.study.root / source.path, to)

    def _replace(self, copy: Copy, write: Write) -> str:
        """Put what ``write`` writes in a copy's place; returns where to it moved what stood there.

        Raises:
            OtherBytesError: if that is not the object.
        """
        if copy.area is Area.REMOTE:
            return self._replace_in_remote(copy, write)
        aside, target = "", self.study.root / copy.path
        with replacing(target) as new:
            write(new)
            _require(new, copy.oid)
            _to_disk(new)
            if os.path.lexists(target):
                aside = self._set_aside(copy)
        _require(target, copy.oid)
        if copy.area is Area.CACHE:
            self.study.repo.cache.local.protect(str(target))
        return aside

    def _replace_in_remote(self, copy: Copy, write: Write) -> str:
        assert self.remote is not None
        aside = ""
        with TemporaryDirectory(dir=self.study.scratch) as directory:
            new, back = Path(directory) / "new", Path(directory) / "back"
            write(new)
            _require(new, copy.oid)
            if copy.state is State.CORRUPT:
                self.remote.fetch(copy.oid, back)
                aside = self._quarantine(back, copy)
            self.remote.put(new, copy.oid)
            self.remote.fetch(copy.oid, back)
            _require(back, copy.oid)
        return aside

    def _set_aside(self, copy: Copy) -> str:
        """Move what lies at a copy's place into quarantine; returns where to."""
        return self._quarantine(self.study.root / copy.path, copy)

    def _quarantine(self, path: Path, copy: Copy) -> str:
        quarantine = self.study.scratch / "quarantine"
        quarantine.mkdir(exist_ok=True)
        names = (quarantine / f"{md5_part(copy.oid)}-{number}" for number in count(1))
        free = next(path for path in names if not os.path.lexists(path))
        shutil.move(path, free)
        return self.study.shown(free)


def _require(path: Path, oid: str) -> None:
    state, detail = state_of(found_at(path), oid)
    if state is not State.INTACT:
        raise OtherBytesError(f"{path} {state.value} {detail}".strip())


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that a crash leaves either the old or the new one."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _loss(step: Step, reasons: Sequence[str], aside: str) -> Finding:
    wrong = [step.copy.state.value, "no copy of it would do" if reasons else "there is no other"]
    wrong += reasons
    if aside:
        wrong.append(f"moved to {aside}")
    remedy = (
        f"{recomputed_by(step.needed.out)} makes {step.needed.name} anew"
        if step.needed is not None
        else "dvc.lock does not name it: `dvc repro` in the commit it belongs to makes it anew"
    )
    return Finding(step.copy.area, step.copy.path, "; ".join(wrong), remedy)
