"""The study on a tiny model: its stages in one process, and in a clone for tests that start DVC."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from reproduction import HERE, TINY, environment, prepare, set_params
from study import ROOT

from circuitdrift.check import check_study
from circuitdrift.core import paths
from circuitdrift.core.study import Run

__all__ = ["ROOT", "Clone", "lay_out", "make_clone", "run_stages", "tiny_clone"]
SETTINGS: dict[str, Any] = {
    **TINY,
    "runs.conditions": ["mapped", "rotated-1"],
    "intervene.conditions": ["mapped", "rotated-1"],
}
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
}


@dataclass(frozen=True)
class Clone:
    """A clone of the study; the folder that holds it is its home."""

    root: Path

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command, the leader of its own process group, its output in one pipe."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={**environment(self.root.parent, HERE), **IDENTITY, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def run(self, *command: str, **variables: str) -> str:
        """The output of a command that succeeds."""
        return self._ended(self.start(*command, **variables), fails=False)

    def fail(self, *command: str, **variables: str) -> str:
        """The output of a command that ends with an error of its own."""
        return self._ended(self.start(*command, **variables), fails=True)

    @staticmethod
    def _ended(process: subprocess.Popen[str], fails: bool) -> str:
        output, _ = process.communicate()
        expected = process.returncode > 0 if fails else process.returncode == 0
        assert expected, f"{process.args} ended with {process.returncode}:\n{output}"
        return output

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "The study")

    def copy(self, home: Path) -> Clone:
        """The same study with a cache and a home of its own."""
        return Clone(Path(shutil.copytree(self.root, home / "study", symlinks=True)))

    @property
    def lock(self) -> str:
        return (self.root / "dvc.lock").read_text(encoding="utf-8")


def make_clone(root: Path) -> Clone:
    """A clone without results, its params those of a tiny study, committed."""
    clone = Clone(prepare(root, SETTINGS))
    clone.run("git", "remote", "remove", "origin")
    clone.commit()
    return clone


def lay_out(root: Path, **params: Any) -> Path:
    """Put the inputs of a tiny study into ``root``."""
    (root / "data").mkdir(parents=True)
    for name in (paths.PARAMS, paths.CONSTRAINTS, paths.ORIGINAL_STUDY):
        shutil.copy(ROOT / name, root / name)
    set_params(root / paths.PARAMS, {**TINY, **params})
    return root


def run_stages(*only: str) -> None:
    """Run every stage in the working directory, or those of these names, in this process."""
    params = check_study(Path())
    runs = [run.name for run in params.runs.all]
    intervene = params.intervene
    tested = [Run(*of).name for of in product(intervene.conditions, intervene.seeds)]
    for stage, names in (
        ("import_base", [None]),
        ("make_dataset", [None]),
        ("finetune", runs),
        ("evaluate", ["base", *runs]),
        ("attribute", ["base", *runs]),
        ("compare", [None]),
        ("intervene", tested),
        ("report", [None]),
    ):
        for name in names if stage in only or not only else ():
            import_module(f"circuitdrift.stages.{stage}").run(params, *filter(None, [name]))


@pytest.fixture(scope="session")
def tiny_clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tiny study, run and committed. A test that changes anything takes a copy."""
    clone = make_clone(tmp_path_factory.mktemp("tiny") / "study")
    clone.run("dvc", "repro")
    clone.commit()
    return clone
