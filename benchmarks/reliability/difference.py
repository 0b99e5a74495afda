"""One part in which two files differ, and the size of the difference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One part of a file that differs.

    Attributes:
        part: the tensor, cell, key, line or byte.
        detail: what stands there in the two files.
        absolute: the largest difference of numbers in this part, None where it is not one of
            numbers alone.
        relative: the same as a share of the part's largest magnitude in either file.
    """

    part: str
    detail: str
    absolute: float | None = None
    relative: float | None = None


def share(absolute: float, *values: float) -> float:
    """``absolute`` as a share of the largest magnitude of ``values``."""
    largest = max(map(abs, values), default=0.0)
    return absolute / largest if largest else 0.0
