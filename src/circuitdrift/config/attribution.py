"""Sections ``attribution`` and ``nulls``: the circuits that are traced, and those beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from circuitdrift.config.section import Count, Fraction, NoneOrMore, Section


class Attribution(Section):
    basis: Literal["neurons"] = Field(description="the kind of features, such as neurons")
    engine: Literal["sweep", "circuit-tracer"] = Field(description="the engine, such as sweep")
    selection: Literal["influence", "effect"] = Field(
        description="by what the expanded neurons are chosen, such as influence"
    )
    discovery_prompts_per_word: Count = Field(
        description="the number of discovery prompts per word, such as 4"
    )
    evaluation_prompts_per_word: Count = Field(
        description="the number of evaluation prompts per word, such as 2"
    )
    # One prompt has no interval.
    control_prompts: Annotated[int, Field(ge=2)] = Field(
        description="the number of control prompts, such as 12"
    )
    graph_prompts_per_word: NoneOrMore = Field(
        description="the number of discovery prompts per word that get a graph too, such as 1"
    )
    graph_control_prompts: NoneOrMore = Field(
        description="the number of control prompts that get a graph too, such as 2"
    )
    feature_nodes: Count = Field(
        description="the number of neurons expanded per graph, such as 256"
    )
    candidates_per_place: Count = Field(
        description="the number of neurons per layer and position that a graph grows among, "
        "such as 32"
    )
    batch_size: Count = Field(description="the number of target rows per backward pass, such as 64")
    max_memory_gb: Annotated[float, Field(gt=0)] = Field(
        description="the gigabytes of gradients that the sweep carries at once, such as 1.0"
    )
    node_threshold: Fraction = Field(
        description="the share of influence that the kept nodes hold, such as 0.8"
    )
    edge_threshold: Fraction = Field(
        description="the share of influence that the kept edges hold, such as 0.98"
    )


class Planted(Section):
    """A change that is known beforehand: one neuron's output scaled in a merged model."""

    scale: Annotated[float, Field(ge=0)] = Field(
        description="what the planted neuron's output is multiplied by, such as 3.0"
    )
    among: Count = Field(
        description="the number of strongest neurons that it is drawn from, such as 100"
    )

    @field_validator("scale")
    @classmethod
    def _changes(cls, scale: float) -> float:
        if scale == 1:
            raise ValueError("must not be 1, which plants nothing")
        return scale


class Nulls(Section):
    random_lora: NoneOrMore = Field(
        description="the number of random adapters per checkpoint of a run, such as 1"
    )
    random_models: NoneOrMore = Field(
        description="the number of randomly initialised models, such as 0"
    )
    planted: Planted
