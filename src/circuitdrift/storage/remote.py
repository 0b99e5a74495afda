"""Opening the study and a remote, with words for what can go wrong there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dvc.config import RemoteConfigError
from dvc.logger import set_loggers_level
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc_data.hashfile.db import HashFileDB
from dvc_objects.fs.base import FileSystem
from dvc_objects.fs.errors import AuthError, ConfigError, RemoteMissingDepsError

from circuitdrift.errors import InputError, Problem

PAGES = {"s3": "s3.md", "ssh": "ssh.md", "webdav": "webdav.md", "webdavs": "webdav.md"}


@contextmanager
def opened(root: Path) -> Iterator[Repo]:
    """The study at ``root``, locked against other DVC commands, DVC's own log kept to errors."""
    with set_loggers_level(logging.ERROR), Repo(str(root)) as repo, lock_repo(repo):
        yield repo


@contextmanager
def writing(places: Sequence[str], repo: Repo, command: str) -> Iterator[None]:
    """Keep stages from writing to ``places``, files or directories of the workspace.

    DVC gives up the lock of ``opened`` while a stage's command runs, and holds this one.

    Raises:
        DvcException: if a stage that runs writes to one of them, or reads it.
    """
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with rwlock(repo.tmp_dir, repo.fs, f"circuitdrift {command}", [], list(places), hardlink):
        yield


@dataclass(frozen=True)
class Remote:
    """A remote that answers.

    Attributes:
        label: its name and address, without credentials.
        objects: what it holds, by hash.
        exists: whether anything was ever pushed to it.
    """

    label: str
    objects: HashFileDB
    exists: bool


@contextmanager
def reaching(repo: Repo, name: str | None) -> Iterator[Remote]:
    """The remote ``name``, or the default one, for as long as it can be reached.

    Raises:
        InputError: if there is no such remote, it needs a package that is not installed, does not
            answer or refuses, now or later in the block.
    """
    name = name or repo.config["core"].get("remote")
    url = without_credentials(repo.config["remote"].get(name, {}).get("url", ""))
    protocol = urlsplit(url).scheme
    label = f"remote {name} ({url})"
    page = f"docs/remotes/{PAGES.get(protocol, 'local.md')}"
    try:
        remote = repo.cloud.get_remote(name)
        yield Remote(label, remote.odb, _exists(remote.fs, remote.path))
    except RemoteConfigError as error:
        raise InputError(
            Problem(
                ".dvc/config, .dvc/config.local",
                name,
                "the name of a DVC remote; core.remote is the one taken where none is given",
                "`dvc remote list` shows those that there are; docs/remotes says how to add one",
            )
        ) from error
    except (ImportError, RemoteMissingDepsError) as error:
        raise InputError(
            Problem(label, str(error), "its file system is installed", f"see {page}")
        ) from error
    except _failures(protocol) as error:
        raise InputError(
            Problem(
                label,
                str(error) or type(error).__name__,
                "it answers, and lets this user in",
                f"look at its address, the network and the credentials: {page}",
            )
        ) from error


def _exists(fs: FileSystem, path: str) -> bool:
    """Whether there is something at ``path``. Unlike ``fs.exists``, which says no to any error."""
    fs.fs  # noqa: B018 - connects; what it does not find here (a key file) is not the path
    try:
        fs.info(path)
    except FileNotFoundError:
        return False
    return True


def _failures(protocol: str) -> tuple[type[Exception], ...]:
    """What the file system of ``protocol`` raises where a remote cannot be used."""
    always = (OSError, AuthError, ConfigError)
    if protocol == "s3":
        from botocore.exceptions import BotoCoreError, ClientError

        return (*always, BotoCoreError, ClientError)
    if protocol == "ssh":
        from asyncssh import Error

        return (*always, Error)
    if protocol in {"webdav", "webdavs"}:
        from httpx import HTTPError
        from webdav4.client import ClientError as WebdavError

        return (*always, HTTPError, WebdavError)
    return always


def without_credentials(url: str) -> str:
    """An address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
