"""What is kept, where its copies lie, and what is wrong with them: the words of this room."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DIRECTORY = ".dir"  # ends the id of a directory's listing


class Area(str, Enum):
    """Where something is checked, in the order of the table."""

    CACHE = "cache"
    WORKSPACE = "workspace"
    REMOTE = "remote"
    CONTENTS = "contents"
    PROVENANCE = "provenance"
    GIT = "git"  # checked for copies alone


class State(Enum):
    """What lies where a copy should lie."""

    INTACT = "is intact"
    CORRUPT = "holds other bytes"
    MISSING = "is missing"
    UNREADABLE = "cannot be read"
    UNREAD = "is there, unread"


@dataclass(frozen=True)
class Found:
    """What lies at a path: the MD5 of its bytes, or why there is none."""

    md5: str | None = None
    trouble: str = ""


NOTHING = Found()


@dataclass(frozen=True)
class Copy:
    """One place of an object.

    Attributes:
        area: cache, workspace, remote or git.
        path: the place: relative to the study's root where it lies below it; a remote's own path.
        oid: the MD5 that the bytes should have; a listing's has ``.dir`` behind it.
        state: what lies there.
        detail: why it cannot be read, or what was found instead.
    """

    area: Area
    path: str
    oid: str
    state: State
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.state in (State.CORRUPT, State.MISSING, State.UNREADABLE)


@dataclass(frozen=True)
class Finding:
    """Something that does not hold."""

    area: Area
    path: str
    wrong: str
    remedy: str


@dataclass(frozen=True)
class Checked:
    """A line of the table: how many of what were checked."""

    area: Area
    what: str
    count: int
    bad: int


def md5_part(oid: str) -> str:
    """The MD5 in an object's id."""
    return oid.removesuffix(DIRECTORY)


def state_of(found: Found, oid: str) -> tuple[State, str]:
    """What ``found`` makes of a copy that should be ``oid``, and the detail."""
    if found.trouble:
        return State.UNREADABLE, found.trouble
    if found.md5 is None:
        return State.MISSING, ""
    if found.md5 == md5_part(oid):
        return State.INTACT, ""
    return State.CORRUPT, f"MD5 {found.md5}"
