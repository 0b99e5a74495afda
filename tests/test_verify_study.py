"""``circuitdrift verify`` on the study with a tiny model: no random corruption escapes it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from circuitdrift.integrity.cache import cache_path
from circuitdrift.integrity.hashing import md5_of_bytes
from circuitdrift.integrity.objects import Area
from circuitdrift.integrity.pipeline import Study, open_study
from circuitdrift.integrity.verification import repair, verify
from corruption import damage
from small_pipeline import files_at, overwrite
from study_clone import Clone, commit, environment
from tiny_study import FirstRuns

KINDS = ("bit flip", "truncation", "deletion", "swap of two")
AREAS = (Area.CACHE, Area.WORKSPACE, Area.REMOTE)
N_CORRUPTIONS = 200


@dataclass(frozen=True)
class Kept:
    """The study after its first run, committed and pushed."""

    clone: Clone
    study: Study
    remote: Path

    def files(self, area: Area) -> list[Path]:
        """The area's files, in an order that hangs on nothing but their names."""
        if area is Area.CACHE:
            return sorted(files_at(self.study.cache))
        if area is Area.REMOTE:
            return sorted(files_at(self.remote / "files"))
        return sorted(
            file for out in self.study.outs for file in files_at(self.study.root / out.path)
        )

    def bytes_of_all(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for area in AREAS for file in self.files(area)}


@pytest.fixture(scope="module")
def kept(first_runs: FirstRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    directory = tmp_path_factory.mktemp("kept")
    root, remote = directory / "study clone", directory / "remote"
    shutil.copytree(first_runs.other.root, root, symlinks=True)
    clone = Clone(root, environment(directory))
    clone.do("dvc", "remote", "add", "--default", "store", str(remote))
    clone.do("dvc", "remote", "modify", "store", "verify", "true")
    commit(clone)
    clone.do("dvc", "push")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clone.environment.items():
            patch.setenv(name, value)
        yield Kept(clone, open_study(clone.root), remote)


def test_the_study_as_it_was_run_is_sound(kept: Kept) -> None:
    report = verify(kept.study, rehash_remote=True)
    assert report.findings == ()
    assert report.notes == ()
    assert all(line.count > 0 for line in report.checked)


def test_every_random_corruption_is_caught(kept: Kept) -> None:
    before = kept.bytes_of_all()
    draw = random.Random(0)
    done: Counter[tuple[str, Area]] = Counter()
    while done.total() < N_CORRUPTIONS:
        for kind, area in product(KINDS, AREAS):
            damaged = damage(kind, kept.files(area), draw)
            report = verify(kept.study, rehash_remote=True)
            told = " ".join(each.path for each in report.findings if each.area is area)
            for file in damaged.files:
                assert kept.study.shown(file) in told, f"{kind} of {file} was not told: {told}"
            damaged.undo()
            done[kind, area] += 1
    assert min(done.values()) >= N_CORRUPTIONS // len(done)
    assert kept.bytes_of_all() == before
    assert verify(kept.study, rehash_remote=True).sound


@pytest.mark.parametrize(("kind", "area"), product(KINDS, AREAS))
def test_a_repair_brings_the_same_bytes_back(kept: Kept, kind: str, area: Area) -> None:
    before = kept.bytes_of_all()
    damaged = damage(kind, kept.files(area), random.Random(1))
    report = repair(kept.study, rehash_remote=True)
    assert report.sound, (report.findings, report.lost)
    assert len(report.restored) == len(damaged.files)
    assert kept.bytes_of_all() == before


def test_a_repair_brings_back_cache_and_workspace_from_the_remote(kept: Kept) -> None:
    before = kept.bytes_of_all()
    shutil.rmtree(kept.study.cache)
    shutil.rmtree(kept.study.root / "models")
    assert repair(kept.study).sound
    assert kept.bytes_of_all() == before
    assert "up to date" in kept.clone.do("dvc", "status")


def test_what_is_lost_can_be_computed_again_by_the_command_that_is_named(kept: Kept) -> None:
    before = kept.bytes_of_all()
    name = "models/checkpoints/mapped-0/100/adapter_model.safetensors"
    oid = md5_of_bytes(before[kept.study.root / name])
    for path in (kept.study.root / name, cache_path(kept.study, oid)):
        overwrite(path, b"corrupted")
    (kept.remote / "files/md5" / oid[:2] / oid[2:]).unlink()
    report = repair(kept.study)
    assert not report.sound
    commands = {finding.remedy.split("`")[1] for finding in report.lost}
    assert commands == {"dvc repro --force --single-item finetune@mapped-0"}
    kept.clone.do(*commands.pop().split())
    assert repair(kept.study, rehash_remote=True).sound
    assert kept.bytes_of_all() == before
