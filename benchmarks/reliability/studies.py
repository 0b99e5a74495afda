"""Two finished studies held against each other, artifact by artifact in the order of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.clones import LOCK, artifacts_of, read_lock
from reliability.difference import Difference
from reliability.differences import file_differences
from reliability.text_files import tree_differences


@dataclass(frozen=True)
class Located:
    """A difference, and the file of an artifact that it is in ('' for an artifact of one file)."""

    file: str
    difference: Difference

    def __str__(self) -> str:
        file = f"{self.file}: " if self.file else ""
        return f"{file}{self.difference.part}: {self.difference.detail}"


@dataclass(frozen=True)
class Comparison:
    """One artifact of two studies; no difference means that all its bytes are equal."""

    artifact: str
    located: tuple[Located, ...]

    @property
    def identical(self) -> bool:
        return not self.located

    @property
    def absolute(self) -> float | None:
        return max((size for _, size in self._sizes()), default=None)

    @property
    def relative(self) -> float | None:
        """The largest difference as a share of the largest magnitude beside it."""
        return max((share for share, _ in self._sizes()), default=None)

    def _sizes(self) -> list[tuple[float, float]]:
        return [
            (each.difference.relative, each.difference.absolute)
            for each in self.located
            if each.difference.relative is not None and each.difference.absolute is not None
        ]


def compare_studies(a: Path, b: Path) -> list[Comparison]:
    """Every artifact that either study's dvc.lock lists, in the order of the first's stages.

    dvc.lock itself is not among them: see :func:`compare_locks`.
    """
    listed = [*artifacts_of(read_lock(a)), *artifacts_of(read_lock(b))]
    return [
        Comparison(artifact, tuple(artifact_differences(a / artifact, b / artifact)))
        for artifact in dict.fromkeys(listed)
    ]


def compare_locks(a: Path, b: Path, in_order: bool) -> Comparison:
    """dvc.lock of both, its stages in the same order too or not."""
    if in_order:
        found = file_differences(a / LOCK, b / LOCK)
    else:
        found = list(tree_differences(read_lock(a), read_lock(b)))
    return Comparison(LOCK, tuple(Located("", difference) for difference in found))


def artifact_differences(a: Path, b: Path) -> list[Located]:
    """Of a file or a folder, in the order of names."""
    names = sorted({*_files(a), *_files(b)})
    if not names:
        return [Located("", Difference("artifact", "in neither"))]
    return [
        Located(name, difference)
        for name in names
        for difference in _differences(a / name, b / name)
    ]


def _files(artifact: Path) -> Sequence[str]:
    if artifact.is_dir():
        files = (path for path in artifact.rglob("*") if path.is_file())
        return [path.relative_to(artifact).as_posix() for path in files]
    return [""] if artifact.is_file() else []


def _differences(a: Path, b: Path) -> list[Difference]:
    if a.is_file() and b.is_file():
        return file_differences(a, b)
    return [Difference("file", f"only in the {'second' if b.is_file() else 'first'}")]
