"""What git knows of experiments, and whether the clone is ready for more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from circuitdrift.errors import InputError, Problem
from circuitdrift.git import GitError, git


@dataclass(frozen=True)
class Experiment:
    """A DVC experiment: a commit under refs/exps, derived from a commit of a branch."""

    name: str
    revision: str
    baseline: str


def head(root: Path) -> str:
    return git(root, "rev-parse", "HEAD").strip()


def experiments(root: Path) -> Iterator[Experiment]:
    """All that this clone has, of every baseline; those of the present commit first."""
    lines = git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    found = []
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{40}) refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)", line)
        if match:
            found.append(Experiment(match[4], match[1], match[2] + match[3]))
    here = head(root)
    return iter(sorted(found, key=lambda each: each.baseline != here))


def content_ids(root: Path, revision: str, names: Iterable[str]) -> dict[str, str]:
    """The hash of each named file's content at a revision; files that are not there are left out.
    A directory stands for all files in it."""
    listed = git(root, "ls-tree", "-r", "-z", revision, "--", *names)
    entries = (entry.split("\t", 1) for entry in listed.split("\0") if entry)
    return {name: described.split()[2] for described, name in entries}


def check_ready_for_experiments(root: Path, besides: Path) -> None:
    """Refuse what would make experiments fail, or be of something else than the last commit.

    Args:
        besides: a directory that may have changed.

    Raises:
        InputError: if there is no commit, if the tree has changes, or if git knows no name.
    """
    head(root)
    problems = []
    exception = f":(exclude){besides.as_posix()}"
    if changed := git(root, "status", "--porcelain", "--", ".", exception).splitlines():
        problems.append(_dirty(changed))
    try:
        git(root, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    except GitError:
        problems.append(_no_identity())
    if problems:
        raise InputError(*problems)


def _dirty(changed: list[str]) -> Problem:
    shown = ", ".join(line[3:] for line in changed[:5])
    return Problem(
        where="git status",
        got=shown + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""),
        rule="no changes: an experiment is of the last commit, and is found again by it",
        remedy="commit them, or set them aside with `git stash --include-untracked`",
    )


def _no_identity() -> Problem:
    return Problem(
        where="git config",
        got="no user.name and user.email",
        rule="an experiment is a commit, and a commit names its author",
        remedy="run `git config user.name NAME` and `git config user.email ADDRESS`",
    )
