"""The contents of a remote that is a folder of this machine, served or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict


class Access(TypedDict):
    names: Callable[[], list[str]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]


def access(folder: Path) -> Access:
    def names() -> list[str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(folder).as_posix() for path in files)

    def write(name: str, content: bytes) -> None:
        (folder / name).unlink(missing_ok=True)  # DVC makes what it writes read-only
        (folder / name).write_bytes(content)

    return {
        "names": names,
        "read": lambda name: (folder / name).read_bytes(),
        "write": write,
        "delete": lambda name: (folder / name).unlink(),
    }
