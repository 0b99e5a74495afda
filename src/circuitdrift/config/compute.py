"""Section ``compute``: what every stage runs on."""

from __future__ import annotations

from pydantic import Field

from circuitdrift.config.section import Count, Section


class Compute(Section):
    threads: Count = Field(description="the number of threads of a stage, such as 2")
