"""Section ``compare``: how circuits are held against each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from circuitdrift.config.section import Count, Fraction, ProperFraction, Section, distinct, sequence


class Compare(Section):
    top_features: Count = Field(
        description="the number of features listed per pair of checkpoints, such as 10"
    )
    thresholds: tuple[Fraction, ...] = sequence(
        "shares of |effect| that node sets hold, such as [0.5, 0.7, 0.9]"
    )
    random_sets: Count = Field(
        description="the number of random node sets per comparison, such as 100"
    )
    tested_per_word: Count = Field(
        description="the number of strongest features tested per word, such as 5000"
    )
    fdr: ProperFraction = Field(
        description="the false discovery rate of recruited and retired nodes, such as 0.05"
    )
    min_effect: Annotated[float, Field(ge=0)] = Field(
        description="the least difference of effects that counts, in logits, such as 0.1"
    )
    min_agreement: Fraction = Field(
        description="the share of prompts on which a change has its mean's sign, such as 0.75"
    )

    _each_once = field_validator("thresholds")(distinct)
