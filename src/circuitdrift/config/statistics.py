"""Section ``statistics``: intervals and tests."""

from __future__ import annotations

from pydantic import Field

from circuitdrift.config.section import Count, ProperFraction, Section, Seed


class Statistics(Section):
    confidence: ProperFraction = Field(description="the confidence of the intervals, such as 0.95")
    bootstrap_samples: Count = Field(
        description="the number of bootstrap samples of an interval, such as 2000"
    )
    permutations: Count = Field(
        description="the most permutations of a test, exact below that, such as 10000"
    )
    seed: Seed = Field(description="the seed of bootstrap and permutations, such as 0")
