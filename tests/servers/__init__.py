"""Real servers that the tests of remote storage start, each on a free port of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class UnavailableError(Exception):
    """What a server needs is not on this machine; the message says what."""


@dataclass(frozen=True)
class Server:
    """A running server of remote storage.

    Attributes:
        page: the page of docs/remotes that says how to use one.
        placeholders: what that page's commands call by an example's name → what it is here.
        read, write: an object's content, by the name that it has in the remote.
        names: of all objects.
        delete: one object.
        environment: what DVC's process needs besides.
    """

    page: str
    placeholders: Mapping[str, str]
    names: Callable[[], list[str]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    environment: Mapping[str, str] = field(default_factory=dict)
