"""The study on a tiny model, run in two clones that share nothing; once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from reliability.clones import (
    ELSEWHERE,
    HERE,
    LOCK,
    TINY,
    Clone,
    commit,
    finished,
    make_clone,
    stages_run,
)
from reliability.injection import noting_unpickled

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class FirstRuns:
    """The study in two clones that differ in path, hash seed, time zone, locale and home.

    Attributes:
        stages: the stages that were run in the first.
        unpickled: where every class is noted that a process of the second unpickled.
    """

    clone: Clone
    other: Clone
    stages: set[str]
    unpickled: Path

    @property
    def locks(self) -> list[str]:
        clones = (self.clone, self.other)
        return [(each.root / LOCK).read_text(encoding="utf-8") for each in clones]


@pytest.fixture(scope="session")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> FirstRuns:
    """Tests may change ``clone``, if they leave it as they found it, and never ``other``."""
    log = tmp_path_factory.mktemp("log") / "unpickled.txt"
    clone, other = (
        make_clone(ROOT, tmp_path_factory.mktemp(name) / world.folder, TINY, world)
        for name, world in (("here", HERE), ("elsewhere", ELSEWHERE))
    )
    both = [each.start("dvc", "repro") for each in (clone, noting_unpickled(other, log))]
    output, _ = map(finished, both)
    for each in (clone, other):
        commit(each)
    return FirstRuns(clone, other, stages_run(output), log)
