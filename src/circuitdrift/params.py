"""params.yaml as frozen models: unknown keys forbidden, no defaults.

A type says what a value may be; params.yaml says in its comments what it is for. Stages import
``Params`` for type checking only: DVC tracks the values that a stage reads, not this code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic_core import PydanticCustomError

from circuitdrift.core.study import Run, checkpoint_name
from circuitdrift.core.yaml import read_yaml, validate

CATALOGUE = ("gemma-3-270m", "smollm2-135m", "tiny")
OWN = "directory"  # a model that lies in base.directory
_HUB = re.compile(r"hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")


def _model(name: str) -> str:
    if name not in (*CATALOGUE, OWN) and not _HUB.fullmatch(name):
        names = ", ".join((*CATALOGUE, OWN))
        rule = f"Input should be {names} or hub:OWNER/NAME@COMMIT"
        if name.startswith("dir:"):
            rule += f"; write a directory as base.model: {OWN} and base.directory: PATH"
        raise PydanticCustomError("model", rule)
    return name


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "Input should have no value twice")
    return values


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise PydanticCustomError("ascending", "Input should ascend")
    return values


def _ascending_percents(fractions: tuple[float, ...]) -> tuple[float, ...]:
    """A checkpoint is named by its percents, so that each needs a name of its own."""
    names = [checkpoint_name(fraction) for fraction in fractions]
    if names != sorted(set(names)) or names[0] == checkpoint_name(0):
        raise PydanticCustomError("ascending", "Input should ascend in whole percents from 0.01 on")
    return fractions


Item = TypeVar("Item")
# A YAML list read into a tuple; its items stay strict.
Listed = Annotated[tuple[Item, ...], Field(strict=False, min_length=1)]
Distinct = Annotated[Listed[Item], AfterValidator(_distinct)]
AnyNumber = Annotated[tuple[Item, ...], Field(strict=False), AfterValidator(_distinct)]

Assigned = Literal["mapped", "rotated-1", "rotated-2"]  # teach every word one meaning
Condition = Literal[Assigned, "shuffled", "unrelated", "foils", "both-ways"]
Share = Annotated[float, Field(gt=0, le=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]
Difference = Annotated[float, Field(ge=0, lt=1)]  # of two shares
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Compute(Section):
    threads: PositiveInt
    kernels: Literal["portable", "native"]


class Runs(Section):
    conditions: Distinct[Condition]
    seeds: Distinct[Seed]

    @property
    def all(self) -> tuple[Run, ...]:
        return tuple(Run(condition, seed) for condition in self.conditions for seed in self.seeds)


class Base(Section):
    model: Annotated[str, AfterValidator(_model)]
    directory: Annotated[str, Field(min_length=1)]  # a path from the repository's root, or whole


class Dataset(Section):
    constraints: Annotated[str, Field(min_length=1)]  # a path below the repository's root
    n_examples: PositiveInt
    examples_from: Annotated[str, Field(min_length=1)]  # likewise


class Lora(Section):
    r: PositiveInt
    alpha: PositiveFloat
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["attention", "all-linear"]


class Train(Section):
    epochs: PositiveFloat
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    schedule: Literal["linear", "constant"]
    warmup_steps: NonNegativeInt
    weight_decay: NonNegativeFloat
    max_grad_norm: PositiveFloat
    loss_on: Literal["answer", "sentence"]
    checkpoints: Annotated[Listed[Share], AfterValidator(_ascending_percents)]
    lora: Lora

    @property
    def checkpoint_names(self) -> tuple[str, ...]:
        return tuple(checkpoint_name(fraction) for fraction in self.checkpoints)


class Evaluate(Section):
    batch_size: PositiveInt


class Attribution(Section):
    engine: Literal["edges", "circuit-tracer"]
    selection: Literal["influence", "effect"]
    near_prompts_per_word: PositiveInt
    discovery_prompts_per_word: PositiveInt
    control_prompts: Annotated[int, Field(ge=2)]  # one prompt has no interval
    graph_seeds: AnyNumber[Seed]
    graph_prompts_per_word: NonNegativeInt
    graph_control_prompts: NonNegativeInt
    feature_nodes: PositiveInt
    candidates_per_place: PositiveInt
    batch_size: PositiveInt
    max_memory_gb: PositiveFloat
    node_threshold: Share
    edge_threshold: Share


class Nulls(Section):
    random_lora: NonNegativeInt
    seeds: AnyNumber[Seed]


class Compare(Section):
    top_nodes: PositiveInt
    tested_per_word: PositiveInt
    fdr: ProperShare


class Intervene(Section):
    conditions: AnyNumber[Assigned]
    seeds: AnyNumber[Seed]
    patched_nodes: Annotated[Listed[PositiveInt], AfterValidator(_ascending)]
    circuit_prompts_per_word: PositiveInt
    sizes: Annotated[Listed[Share], AfterValidator(_ascending)]
    transfer_size: Share
    batch_size: PositiveInt
    seed: Seed


class Statistics(Section):
    confidence: ProperShare
    permutations: PositiveInt
    coverage_samples: PositiveInt
    seed: Seed


class Verdicts(Section):
    """The thresholds of docs/preregistration.md, which precede the second round's results."""

    alpha: ProperShare
    coverage: Annotated[
        tuple[ProperShare, ProperShare], Field(strict=False), AfterValidator(_ascending)
    ]
    min_consistency_gain: Difference
    min_assignment_ratio: PositiveFloat
    min_distance_closed: Difference
    patched_nodes: PositiveInt
    min_donor_difference: NonNegativeFloat  # logits
    min_patched_words: PositiveInt
    min_step_ratio: PositiveFloat
    min_accuracy_above_chance: Difference
    min_discrimination: Share
    min_substitution_above_chance: Difference
    max_range_share: Share
    max_accuracy_from_chance: Difference


class Params(Section):
    """All of params.yaml."""

    compute: Compute
    runs: Runs
    base: Base
    dataset: Dataset
    train: Train
    evaluate: Evaluate
    attribution: Attribution
    nulls: Nulls
    compare: Compare
    intervene: Intervene
    statistics: Statistics
    verdicts: Verdicts


def load_params(path: Path) -> Params:
    """params.yaml, read and checked; an :class:`InputError` names every refused value."""
    return validate(Params, read_yaml(path), source=path.name)
