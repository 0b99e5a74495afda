"""dvc.yaml and dvc.lock as DVC reads them, without what it remembers of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.dvcfile import load_file
from dvc.exceptions import DvcException
from dvc.repo import Repo

from circuitdrift.errors import InputError, Problem

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"


@dataclass(frozen=True)
class Out:
    """An output of a stage.

    Attributes:
        path: relative to the study's root.
        oid: as dvc.lock has it; None where it does not know the output.
        cached: whether DVC keeps it; git does if not.
        stage: that makes it.
    """

    path: str
    oid: str | None
    cached: bool
    stage: str


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml, its matrix expanded, beside its entry in dvc.lock.

    Attributes:
        locked_command: None where dvc.lock does not know the stage.
        deps: paths, and their ids in dvc.lock or None.
        params: keys whose value is not dvc.lock's, and how so.
        n_params: how many keys it has.
        dropped: paths that dvc.lock names as inputs or outputs, and dvc.yaml no longer does.
    """

    name: str
    command: str
    locked_command: str | None
    deps: tuple[tuple[str, str | None], ...]
    outs: tuple[Out, ...]
    params: tuple[tuple[str, str], ...]
    n_params: int
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A study on disk.

    Attributes:
        left_over: stages of dvc.lock that dvc.yaml no longer has.
    """

    root: Path
    stages: tuple[Stage, ...]
    left_over: tuple[str, ...]
    repo: Repo

    @cached_property
    def outs(self) -> tuple[Out, ...]:
        return tuple(out for stage in self.stages for out in stage.outs)

    @property
    def cache(self) -> Path:
        """Where objects are kept."""
        return Path(self.repo.cache.local.path)

    @property
    def old_cache(self) -> Path:
        """Where DVC kept objects before its third version, and keeps run records still."""
        return Path(self.repo.cache.legacy.path)

    @property
    def scratch(self) -> Path:
        """DVC's own directory for what is passing."""
        return Path(self.repo.tmp_dir)

    def shown(self, path: Path) -> str:
        """``path`` relative to the root where it lies below it."""
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def tracked_below(self, path: str) -> Iterator[str]:
        """The files at or below ``path``, without those that DVC is told to ignore."""
        place = self.root / path
        if place.is_dir():
            for file in self.repo.dvcignore.find(self.repo.fs, str(place)):
                yield self.shown(Path(file))
        elif place.is_symlink() or place.exists():
            yield path


def open_study(root: Path) -> Study:
    """Read the study at ``root``.

    Raises:
        InputError: if DVC cannot read it.
    """
    root = root.resolve()
    try:
        repo = Repo(str(root))
        file = load_file(repo, str(root / PIPELINE))
        stages, locked = list(file.stages.values()), file.stages.lockfile_data
        read = tuple(_stage(stage, locked.get(stage.name, {})) for stage in stages)
    except (DvcException, OSError) as error:  # DVC writes to .dvc/tmp before it reads
        raise _unreadable(root, str(error)) from error
    if Path(repo.root_dir) != root:
        raise _unreadable(root, f"it lies in the DVC repository {repo.root_dir}")
    left_over = sorted(locked.keys() - {stage.name for stage in stages})
    return Study(root, read, tuple(left_over), repo)


def _unreadable(root: Path, got: str) -> InputError:
    return InputError(
        Problem(
            where=str(root),
            got=got,
            rule=f"the root of a DVC repository, with {PIPELINE} and {LOCK} that DVC can read",
            remedy=f"name the root by --root; `git checkout {PIPELINE} {LOCK} params.yaml` brings"
            " back what was committed",
        )
    )


def _stage(stage: Any, locked: Mapping[str, Any]) -> Stage:
    """Take from DVC's stage what dvc.yaml says, and from ``locked`` what dvc.lock says."""
    oids = {
        kind: {entry["path"]: entry.get("md5") for entry in locked.get(kind, [])}
        for kind in ("deps", "outs")
    }
    params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
    deps = {dep.def_path: None for dep in stage.deps if dep not in params}
    outs = {out.def_path: out.use_cache for out in stage.outs}
    return Stage(
        name=stage.name,
        command=stage.cmd,
        locked_command=locked.get("cmd"),
        deps=tuple((path, oids["deps"].get(path)) for path in deps),
        outs=tuple(
            Out(path, oids["outs"].get(path), cached, stage.name) for path, cached in outs.items()
        ),
        params=tuple(changed for dep in params for changed in _changed_params(dep)),
        n_params=sum(len(dep.params) for dep in params),
        dropped=tuple(
            sorted((oids["deps"].keys() - deps.keys()) | (oids["outs"].keys() - outs.keys()))
        ),
    )


def _changed_params(dep: ParamsDependency) -> Iterator[tuple[str, str]]:
    """Keys whose values differ from dvc.lock's; DVC reads the file for it and remembers nothing."""
    for file, changed in dep.workspace_status().items():
        if isinstance(changed, str):
            yield file, changed
        else:
            for key, how in changed.items():
                yield f"{dep.def_path}: {key}", how
