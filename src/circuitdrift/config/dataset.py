"""Section ``dataset``: the training examples."""

from __future__ import annotations

from pydantic import Field

from circuitdrift.config.section import Count, Section, Seed


class Dataset(Section):
    n_examples: Count = Field(description="the number of training examples, such as 50")
    seed: Seed = Field(description="the seed of the choice of examples, such as 0")
    examples_from: str = Field(
        min_length=1, description="data/constraints.yaml for its templates, or a JSON Lines file"
    )
