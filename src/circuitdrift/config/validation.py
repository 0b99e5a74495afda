"""Section ``validation``: the interventions that test circuits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from circuitdrift.config.condition import Condition
from circuitdrift.config.section import Count, Fraction, Section, Seed, distinct, sequence


class Validation(Section):
    conditions: tuple[Condition, ...] = sequence(
        "the conditions whose circuits are tested, such as [mapped]"
    )
    prompts_per_word: Count = Field(
        description="the number of evaluation prompts per word, such as 3"
    )
    sizes: tuple[Fraction, ...] = sequence(
        "ascending shares of all nodes that a circuit holds, such as [0.001, 0.01, 0.1, 1.0]"
    )
    transfer_size: Fraction = Field(
        description="the share of all nodes in the circuits that change models, such as 0.02"
    )
    random_circuits: Count = Field(
        description="the number of random circuits of each size, such as 1"
    )
    ranked_nodes: Annotated[int, Field(ge=3)] = Field(
        description="the number of nodes ablated one by one per prompt, such as 32"
    )
    ranked_prompts_per_word: Count = Field(
        description="the number of evaluation prompts per word for that, such as 1"
    )
    batch_size: Count = Field(description="the number of prompts per batch, such as 32")
    seed: Seed = Field(description="the seed of random circuits, such as 0")

    _each_once = field_validator("conditions")(distinct)

    @field_validator("sizes")
    @classmethod
    def _ascend(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("must ascend")
        return sizes
