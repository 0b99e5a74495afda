"""The default remote, asked through DVC's own file systems: a directory, S3, SSH, WebDAV.

DVC's object database of a remote is taken for its paths alone: its ``check`` and, on a remote that
is a directory, its ``oids_exist`` delete an object that they find corrupted.

Each kind of remote raises errors of its own libraries, which are not installed where it is not
used. They are taken as values, from DVC or from a finished task, and said in the findings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.exceptions import DvcException
from dvc.fs import generic, localfs

from circuitdrift.integrity.hashing import Track, found_at, hash_files
from circuitdrift.integrity.objects import Area, Copy, Found, State, state_of
from circuitdrift.integrity.pipeline import Study
from circuitdrift.storage.remote import without_credentials

_DOWNLOADS = 4  # at once


class UnreachableError(Exception):
    """A remote that cannot be asked, and why."""


class NothingThereError(UnreachableError):
    """A remote that was never pushed to, or that is no longer where it was."""


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Remote:
    """A remote that answered."""

    odb: Any

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory of this machine."""
        return bool(self.odb.fs.protocol == localfs.protocol)

    def path(self, oid: str) -> str:
        return str(self.odb.oid_to_path(oid))

    def shown(self, oid: str) -> str:
        return _address(self.odb.fs, self.path(oid))

    def fetch(self, oid: str, to: Path) -> None:
        """Copy an object to ``to``; raises what its file system raises."""
        generic.copy(self.odb.fs, self.path(oid), localfs, str(to))

    def put(self, source: Path, oid: str) -> None:
        """Upload an object in place of what is there; raises what its file system raises."""
        path = self.path(oid)
        self.odb.fs.makedirs(self.odb.fs.parent(path), exist_ok=True)
        generic.copy(localfs, str(source), self.odb.fs, path)

    def sizes(self, oids: Collection[str]) -> dict[str, int | Exception]:
        """Bytes of each object, or why they are not known."""
        answers = self.odb.fs.info([self.path(oid) for oid in oids], return_exceptions=True)
        return {
            oid: answer if isinstance(answer, Exception) else int(answer["size"])
            for oid, answer in zip(oids, answers, strict=True)
        }


def default_remote(study: Study) -> Remote | None:
    """The default remote; None where none is configured.

    Raises:
        NothingThereError: if nothing lies at its address.
        UnreachableError: if its configuration does not work here, or nothing answers.
    """
    if not study.repo.config["core"].get("remote"):
        return None
    try:
        remote = study.repo.cloud.get_remote(command="verify")
        odb = study.repo.cloud.get_remote_odb(command="verify")
    except (DvcException, ImportError) as error:  # a kind of remote may not be installed
        raise UnreachableError(str(error)) from error
    # A file system connects when first asked: what it lacks then (a key file) is not the path.
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(lambda: remote.fs.fs).exception()
    if failed is not None:
        raise UnreachableError(described(failed))
    answer = remote.fs.info(remote.path, return_exceptions=True)
    if isinstance(answer, FileNotFoundError):
        raise NothingThereError(f"nothing lies at {_address(remote.fs, remote.path)}")
    if isinstance(answer, Exception):
        raise UnreachableError(described(answer))
    return Remote(odb)


def _address(fs: Any, path: str) -> str:
    return without_credentials(str(fs.unstrip_protocol(path)))


def remote_copies(
    remote: Remote, oids: Collection[str], scratch: Path, track: Track, *, rehash: bool
) -> list[Copy]:
    """The remote's copy of each object, its bytes hashed only where ``rehash``.

    Args:
        scratch: directory for downloads; each is removed when it is hashed.
    """
    sizes = remote.sizes(oids)
    there = {oid: size for oid, size in sizes.items() if not isinstance(size, Exception)}
    found = _hashed(remote, there, scratch, track) if rehash else {}
    copies = []
    for oid in oids:
        state, detail = State.UNREAD, ""
        if oid in found:
            state, detail = state_of(found[oid], oid)
        elif oid not in there:
            state, detail = _absent(sizes[oid])
        copies.append(Copy(Area.REMOTE, remote.shown(oid), oid, state, detail))
    return copies


def _absent(answer: int | Exception) -> tuple[State, str]:
    assert isinstance(answer, Exception)
    if isinstance(answer, FileNotFoundError):
        return State.MISSING, ""
    return State.UNREADABLE, described(answer)


def _hashed(
    remote: Remote, sizes: Mapping[str, int], scratch: Path, track: Track
) -> dict[str, Found]:
    name = Area.REMOTE.value
    if remote.is_directory:
        found = hash_files(name, (Path(remote.path(oid)) for oid in sizes), track)
        return {oid: found[Path(remote.path(oid))] for oid in sizes}
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=scratch) as directory,
        track(name, sum(sizes.values())) as advance,
        ThreadPoolExecutor(_DOWNLOADS) as pool,
    ):

        def downloaded(oid: str) -> Found:
            file = Path(directory) / oid
            remote.fetch(oid, file)
            found = found_at(file)
            file.unlink()
            advance(sizes[oid])
            return found

        tasks = {oid: pool.submit(downloaded, oid) for oid in sizes}
        errors = {oid: task.exception() for oid, task in tasks.items()}
        return {
            oid: tasks[oid].result() if error is None else Found(trouble=described(error))
            for oid, error in errors.items()
        }


def fetched_bytes(remote: Remote, oid: str, scratch: Path) -> bytes | None:
    """A small object's bytes, None where the remote does not give them."""
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch) as directory, ThreadPoolExecutor(1) as pool:
        file = Path(directory) / oid
        failed = pool.submit(remote.fetch, oid, file).exception()
        return file.read_bytes() if failed is None else None
