"""Section ``verdicts``: what a claim must reach."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from circuitdrift.config.section import ProperFraction, Section


class Verdicts(Section):
    """What a claim must reach, fixed before any result is looked at."""

    alpha: ProperFraction = Field(description="the level of the tests, such as 0.05")
    min_drift_difference: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the least difference of drifts that counts, such as 0.02"
    )
    min_accuracy_gain: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the least gain in accuracy over the shuffled condition, such as 0.2"
    )
    min_patched_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the least share of the change that recruited nodes must carry, such as 0.1"
    )
