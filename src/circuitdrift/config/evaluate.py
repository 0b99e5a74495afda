"""Section ``evaluate``: what is asked of a model."""

from __future__ import annotations

from pydantic import Field

from circuitdrift.config.section import Count, Section


class Evaluate(Section):
    batch_size: Count = Field(description="the number of prompts per batch, such as 32")
