"""What git has of a study: files as they were committed, and what was not committed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from circuitdrift.git import git
from circuitdrift.integrity.hashing import md5_of_bytes


def committed_bytes(root: Path, path: str) -> bytes | None:
    """A file as the last commit has it, None where it does not."""
    shown = _git(root, "show", f"HEAD:./{path}")
    return shown.stdout if shown.returncode == 0 else None


def committed_md5s(root: Path, directory: str) -> dict[str, str]:
    """The MD5s of the files below ``directory`` in the last commit, by path from ``root``."""
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", "--", directory)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    contents = {name: committed_bytes(root, name) for name in names}
    return {
        name: md5_of_bytes(content) for name, content in contents.items() if content is not None
    }


def uncommitted(root: Path, paths: Sequence[str]) -> list[str]:
    """Which of the files at or below ``paths`` are not as the last commit has them.

    Raises:
        GitError: if git cannot say.
    """
    status = git(root, "status", "--porcelain", "-z", "--no-renames", "--", *paths)
    return [entry[3:] for entry in status.split("\0") if entry]


def _git(root: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *command], cwd=root, capture_output=True, check=False)
