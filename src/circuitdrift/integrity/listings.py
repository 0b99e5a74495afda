"""A directory's listing as DVC keeps it: the MD5 of every file below it, by its relative path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

from circuitdrift.errors import InputError, Problem
from circuitdrift.integrity.objects import DIRECTORY

Listing = Mapping[str, str]
"""Paths relative to the directory, and the MD5 of each file."""


def parse_listing(content: bytes, directory: str) -> Listing:
    """Read the listing of ``directory``, whose bytes are what dvc.lock asks for.

    Raises:
        InputError: if it is no listing, or names a file outside of its directory.
    """
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise _refused(directory, str(error)) from error
    files = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        match entry:
            case {"relpath": str(path), "md5": str(md5)} if _stays_below(path):
                files[path] = md5
            case _:
                raise _refused(directory, entry)
    return files


def _refused(directory: str, got: object) -> InputError:
    return InputError(
        Problem(
            where=f"{directory}: the listing that dvc.lock names",
            got=got,
            rule="a list of files below the directory, each a relpath and an md5",
            remedy="see by `git log dvc.lock` who named it, and trust nothing of that commit",
        )
    )


def _stays_below(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def listing_bytes(files: Listing) -> bytes:
    """The listing in the bytes that DVC gives it."""
    entries = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return json.dumps(entries, sort_keys=True).encode()


def listing_oid(files: Listing) -> str:
    """The id of a directory with these files."""
    return hashlib.md5(listing_bytes(files), usedforsecurity=False).hexdigest() + DIRECTORY


def files_below(directory: str, files: Mapping[str, str]) -> Listing:
    """Of ``files``, paths and MD5s, those below ``directory``, by their paths in it."""
    prefix = f"{directory}/"
    return {
        path.removeprefix(prefix): md5 for path, md5 in files.items() if path.startswith(prefix)
    }
