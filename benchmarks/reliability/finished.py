"""The undisturbed study: copied for a fault, made stale at a stage, and what a copy has lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reliability.clones import HERE, LOCK, Clone, artifacts_of, environment

CACHE = Path(".dvc/cache")
OBJECTS = CACHE / "files" / "md5"
RUNS = CACHE / "runs"
_DIRECTORY = ".dir"


@dataclass(frozen=True)
class Finished:
    """A clone in which the study has run, undisturbed.

    Attributes:
        lock: the text of its dvc.lock.
        files: md5 of every file of every artifact, by its path.
    """

    clone: Clone
    lock: str
    files: dict[str, str]

    @classmethod
    def of(cls, clone: Clone) -> Finished:
        lock = (clone.root / LOCK).read_text(encoding="utf-8")
        return cls(clone, lock, file_hashes(clone.root, clone.lock()))

    def copy(self, parent: Path) -> Clone:
        """The same study in the new folder ``parent``, with a cache and a home of its own."""
        root = parent / HERE.folder
        shutil.copytree(self.clone.root, root, symlinks=True)
        return Clone(root, environment(parent))

    def lost(self, clone: Clone, rerun: str | None = None) -> list[str]:
        """Artifacts that a copy no longer has as they were, those of the stage ``rerun`` aside."""
        ours = self.clone.lock()
        made_anew = artifacts_of({rerun: ours[rerun]}) if rerun else []
        now = file_hashes(clone.root, ours)
        return [
            name
            for name, md5 in self.files.items()
            if now.get(name) != md5 and not any(_within(name, artifact) for artifact in made_anew)
        ]

    def same(self, clone: Clone) -> bool:
        """Whether a copy ended with the same dvc.lock and the same artifacts, byte for byte."""
        lock = (clone.root / LOCK).read_text(encoding="utf-8")
        return lock == self.lock and not self.lost(clone)


def _within(name: str, artifact: str) -> bool:
    return name == artifact or name.startswith(f"{artifact}/")


def file_hashes(root: Path, stages: dict[str, Any]) -> dict[str, str]:
    """md5 of every file of every artifact, by its path from ``root``."""
    return {
        path.relative_to(root).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for artifact in artifacts_of(stages)
        for path in sorted(_files(root / artifact))
    }


def _files(artifact: Path) -> Iterator[Path]:
    if artifact.is_dir():
        yield from (path for path in artifact.rglob("*") if path.is_file())
    elif artifact.is_file():
        yield artifact


def make_stale(clone: Clone, stage: str, keep_runs: bool = False) -> None:
    """Leave ``stage`` as after a change of its code: its results are of another, and gone.

    They are in no cache. Unless ``keep_runs``, no record of any stage's run is left that could
    bring its results back.
    """
    stages = clone.lock()
    for artifact in artifacts_of({stage: stages[stage]}):
        _remove(clone.root / artifact)
    if not keep_runs:
        shutil.rmtree(clone.root / RUNS)
    others = {name: entry for name, entry in stages.items() if name != stage}
    for md5 in objects_of(clone.root, {stage: stages[stage]}) - objects_of(clone.root, others):
        object_path(clone.root, md5).unlink(missing_ok=True)
    yaml = YAML()
    text = yaml.load(clone.root / LOCK)
    text["stages"][stage]["deps"][0]["md5"] = "0" * 32
    yaml.dump(text, clone.root / LOCK)


def objects_of(root: Path, stages: dict[str, Any]) -> set[str]:
    """Hashes of the cache objects that stages' outputs are made of, folders' lists too."""
    hashes = {out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    for md5 in [each for each in hashes if each.endswith(_DIRECTORY)]:
        listed = object_path(root, md5)
        if listed.is_file():
            hashes.update(entry["md5"] for entry in json.loads(listed.read_bytes()))
    return hashes


def object_path(root: Path, md5: str) -> Path:
    return root / OBJECTS / md5[:2] / md5[2:]


def object_of(root: Path, file: str) -> Path:
    """The cache object of a file of a cached artifact."""
    return object_path(root, hashlib.md5((root / file).read_bytes()).hexdigest())


def leftovers(clone: Clone) -> list[Path]:
    """Half-written outputs that lie about."""
    return sorted(clone.root.rglob("*.partial-*"))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
