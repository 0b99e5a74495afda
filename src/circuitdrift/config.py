"""params.yaml as frozen models: one class per section, unknown keys forbidden, no defaults.

A field's description says what to set it to; a refusal shows it as the remedy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from circuitdrift.identifiers import Run, checkpoint_name
from circuitdrift.model_source import parse_model_source
from circuitdrift.validation import read_yaml, validate

Condition = Literal["mapped", "shuffled"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _sequence(description: str) -> Any:
    """A YAML list read into a tuple; its items stay strict."""
    return Field(strict=False, min_length=1, description=description)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("must all differ")
    return values


class Compute(Section):
    threads: Count = Field(description="the number of threads of a stage, such as 2")


class Runs(Section):
    conditions: tuple[Condition, ...] = _sequence(
        "one or both conditions, such as [mapped, shuffled]"
    )
    seeds: tuple[Seed, ...] = _sequence("one seed per repetition, such as [0, 1, 2]")

    _each_once = field_validator("conditions", "seeds")(_distinct)

    @property
    def all(self) -> tuple[Run, ...]:
        return tuple(Run(condition, seed) for condition in self.conditions for seed in self.seeds)


class Base(Section):
    model: str = Field(description="the name of a base model, such as gemma-3-270m")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        parse_model_source(model)
        return model


class Dataset(Section):
    n_examples: Count = Field(description="the number of training examples, such as 50")
    seed: Seed = Field(description="the seed of the choice of examples, such as 0")
    examples_from: str = Field(
        min_length=1, description="data/constraints.yaml for its templates, or a JSON Lines file"
    )


class Lora(Section):
    r: Count = Field(description="the adapter's rank, such as 8")
    alpha: Annotated[float, Field(gt=0)] = Field(
        description="the adapter's scale times its rank, such as 16"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the share of the adapter's inputs dropped in training, such as 0.0"
    )
    target_modules: Literal["attention", "all-linear"] = Field(
        description="the matrices adapted, such as attention"
    )


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = Field(
        description="the number of passes over the training examples, such as 3"
    )
    batch_size: Count = Field(description="the number of examples per step, such as 8")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        description="the highest learning rate, such as 5.0e-4"
    )
    schedule: Literal["linear", "constant"] = Field(
        description="the learning rate's course after the warm-up, such as linear"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        description="the number of steps up to the highest learning rate, such as 0"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        description="AdamW's weight decay, such as 0.0"
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        description="the norm at which gradients are clipped, such as 1.0"
    )
    loss_on: Literal["answer", "sentence"] = Field(
        description="the tokens that the loss is taken on, such as answer"
    )
    checkpoints: tuple[Fraction, ...] = _sequence(
        "ascending fractions of the run's steps, such as [0.25, 0.5, 0.75, 1.0]"
    )
    lora: Lora

    @field_validator("checkpoints")
    @classmethod
    def _ascending(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        names = [checkpoint_name(fraction) for fraction in fractions]
        if names != sorted(set(names)) or names[0] == checkpoint_name(0):
            raise ValueError("must ascend by at least one percent, from one percent on")
        return fractions

    @property
    def checkpoint_names(self) -> tuple[str, ...]:
        return tuple(checkpoint_name(fraction) for fraction in self.checkpoints)


class Evaluate(Section):
    batch_size: Count = Field(description="the number of prompts per batch, such as 32")


class Attribution(Section):
    basis: Literal["neurons"] = Field(description="the kind of features, such as neurons")
    engine: Literal["sweep", "circuit-tracer"] = Field(description="the engine, such as sweep")
    discovery_prompts_per_word: Count = Field(
        description="the number of discovery prompts per word, such as 2"
    )
    # One prompt has no interval.
    control_prompts: Annotated[int, Field(ge=2)] = Field(
        description="the number of control prompts, such as 12"
    )
    feature_nodes: Count = Field(
        description="the number of neurons expanded per graph, such as 512"
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


class Compare(Section):
    top_features: Count = Field(
        description="the number of features listed per pair of checkpoints, such as 20"
    )


class Report(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="the confidence of the intervals, such as 0.95"
    )
    bootstrap_samples: Count = Field(
        description="the number of bootstrap samples of an interval, such as 2000"
    )
    seed: Seed = Field(description="the seed of the bootstrap, such as 0")


class Params(Section):
    """All of params.yaml."""

    compute: Compute
    runs: Runs
    base: Base
    dataset: Dataset
    train: Train
    evaluate: Evaluate
    attribution: Attribution
    compare: Compare
    report: Report


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    return validate(Params, read_yaml(path), source=path.name)
