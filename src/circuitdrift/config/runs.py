"""Section ``runs``: the fine-tunings of the study."""

from __future__ import annotations

from pydantic import field_validator

from circuitdrift.config.condition import Condition
from circuitdrift.config.section import Section, Seed, distinct, sequence
from circuitdrift.identifiers import Run


class Runs(Section):
    conditions: tuple[Condition, ...] = sequence(
        "one condition or more, such as [mapped, shuffled]"
    )
    seeds: tuple[Seed, ...] = sequence("one seed per repetition, such as [0, 1, 2]")

    _each_once = field_validator("conditions", "seeds")(distinct)

    @property
    def all(self) -> tuple[Run, ...]:
        return tuple(Run(condition, seed) for condition in self.conditions for seed in self.seeds)
