"""git, asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

from circuitdrift.errors import InputError, Problem


class GitError(InputError):
    """A git command failed."""


def git(root: Path, *arguments: str) -> str:
    """Output of a git command.

    Raises:
        GitError: with git's own words, or if there is no git.
    """
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError as error:
        raise GitError(_refused(root, str(error))) from None
    if done.returncode != 0:
        raise GitError(_refused(root, done.stderr.strip() or f"git {arguments[0]} failed"))
    return done.stdout


def _refused(root: Path, words: str) -> Problem:
    return Problem(
        where=str(root.resolve()),
        got=words,
        rule="the study is a clone with at least one commit, which git may read",
        remedy="run it in a clone of the study; `git status` there has no complaint",
    )
