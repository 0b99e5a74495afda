"""How far an artifact may lie from the reference where float bits cannot be the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reliability.difference import Difference
from reliability.studies import Comparison


@dataclass(frozen=True)
class Allowed:
    """A number may differ by ``absolute``, or by ``relative`` of the larger one; a word may not."""

    absolute: float
    relative: float

    def __contains__(self, difference: Difference) -> bool:
        if difference.absolute is None or difference.relative is None:
            return False
        return difference.absolute <= self.absolute or difference.relative <= self.relative


Tolerance = Mapping[str, Allowed]
"""By artifact; one that is not named may differ in anything."""


def beyond(comparison: Comparison, allowed: Allowed) -> list[Difference]:
    """The differences of an artifact that are larger than allowed."""
    differences = [each.difference for each in comparison.located]
    return [each for each in differences if each not in allowed]
