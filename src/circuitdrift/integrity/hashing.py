"""Hashing files anew, several at a time; what DVC remembers of them is never asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dvc_data.hashfile.hash import fobj_md5

from circuitdrift.integrity.objects import NOTHING, Found

Advance = Callable[[int], None]
Track = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress bar: its name and its bytes in all; what it yields takes the bytes done."""

_THREADS = min(4, os.cpu_count() or 1)  # hashing lets other threads run


def untracked(_name: str, _total: int) -> AbstractContextManager[Advance]:
    """A progress bar that nobody sees."""
    return nullcontext(lambda _done: None)


def md5_of(path: Path, *, text: bool = False) -> str:
    """MD5 of a file's bytes, read in chunks.

    Args:
        text: take every line end as one byte, as DVC did before its third version.
    """
    with path.open("rb") as file:
        return fobj_md5(file, name="md5-dos2unix" if text else "md5")


def md5_of_bytes(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def found_at(path: Path, *, text: bool = False) -> Found:
    """What lies at ``path``, symbolic links followed."""
    try:
        return Found(md5_of(path, text=text))
    except FileNotFoundError:
        return NOTHING
    except IsADirectoryError:
        return Found(trouble="a directory in a file's place")
    except OSError as error:
        return Found(trouble=error.strerror or str(error))


def hash_files(
    name: str, paths: Iterable[Path], track: Track, texts: frozenset[Path] = frozenset()
) -> dict[Path, Found]:
    """What lies at each path.

    Args:
        name: of the progress bar.
        texts: which of the paths are hashed as DVC did before its third version.
    """
    sizes = {path: _size(path) for path in paths}
    largest_first = sorted(sizes, key=lambda path: -sizes[path])
    with track(name, sum(sizes.values())) as advance, ThreadPoolExecutor(_THREADS) as pool:

        def found(path: Path) -> Found:
            result = found_at(path, text=path in texts)
            advance(sizes[path])
            return result

        return dict(zip(largest_first, pool.map(found, largest_first), strict=True))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # what is wrong with it is found in hashing it
