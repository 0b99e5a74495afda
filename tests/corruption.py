"""Random damage to files, each of which can be undone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from small_pipeline import overwrite

Undo = Callable[[], None]


@dataclass(frozen=True)
class Damage:
    """What was done to which files, and how to undo it."""

    kind: str
    files: tuple[Path, ...]
    undo: Undo


def damage(kind: str, files: Sequence[Path], draw: random.Random) -> Damage:
    """Damage one of the files, or two that differ, behind the back of whoever trusts a file's mode
    and time."""
    full = [file for file in files if file.stat().st_size]
    if kind == "swap of two":
        one = draw.choice(full)
        other = draw.choice([file for file in full if file.read_bytes() != one.read_bytes()])
        first, second = one.read_bytes(), other.read_bytes()
        overwrite(one, second)
        overwrite(other, first)
        return Damage(kind, (one, other), restoring({one: first, other: second}))
    file = draw.choice(full)
    before, mode = file.read_bytes(), file.stat().st_mode
    if kind == "deletion":
        file.unlink()
        return Damage(kind, (file,), partial(bring_back, file, before, mode))
    if kind == "bit flip":
        flipped = bytearray(before)
        flipped[draw.randrange(len(before))] ^= 1 << draw.randrange(8)
        overwrite(file, bytes(flipped))
    else:
        assert kind == "truncation"
        overwrite(file, before[: draw.randrange(len(before))])
    return Damage(kind, (file,), restoring({file: before}))


def bring_back(file: Path, content: bytes, mode: int) -> None:
    file.write_bytes(content)
    file.chmod(mode)


def restoring(contents: Mapping[Path, bytes]) -> Undo:
    def undo() -> None:
        for file, content in contents.items():
            overwrite(file, content)

    return undo
