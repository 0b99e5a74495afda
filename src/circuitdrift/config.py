"""params.yaml as frozen models: one class per section, unknown keys forbidden, no defaults."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from circuitdrift.errors import InputError, Problem
from circuitdrift.identifiers import Run, checkpoint_name
from circuitdrift.model_source import parse_model_source

Condition = Literal["mapped", "shuffled"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _sequence() -> Any:
    """A YAML list read into a tuple; its items stay strict."""
    return Field(strict=False, min_length=1)


class Compute(Section):
    threads: Count = Field(description="threads of one stage")


class Runs(Section):
    conditions: Annotated[tuple[Condition, ...], _sequence()]
    seeds: Annotated[tuple[Seed, ...], _sequence()]

    @model_validator(mode="after")
    def _distinct(self) -> Runs:
        if len(set(self.conditions)) < len(self.conditions) or len(set(self.seeds)) < len(
            self.seeds
        ):
            raise ValueError("conditions and seeds must each be distinct")
        return self

    @property
    def all(self) -> tuple[Run, ...]:
        return tuple(Run(condition, seed) for condition in self.conditions for seed in self.seeds)


class Base(Section):
    model: str = Field(description="a catalogue name, dir:PATH, or hub:NAME@REVISION")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        parse_model_source(model)
        return model


class Dataset(Section):
    n_examples: Count = Field(description="training examples")
    seed: Seed
    training_file: str | None = Field(description="a JSON Lines file, or null for the templates")


class Lora(Section):
    r: Count = Field(description="rank")
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["attention", "all-linear"]


class Train(Section):
    epochs: Annotated[float, Field(gt=0)] = Field(description="passes over the training examples")
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["linear", "constant"]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    loss_on: Literal["answer", "sentence"]
    checkpoints: Annotated[tuple[Fraction, ...], _sequence()]
    lora: Lora

    @model_validator(mode="after")
    def _ascending(self) -> Train:
        names = self.checkpoint_names
        if list(self.checkpoints) != sorted(self.checkpoints) or len(set(names)) < len(names):
            raise ValueError("checkpoints must ascend and differ by at least one percent")
        return self

    @property
    def checkpoint_names(self) -> tuple[str, ...]:
        return tuple(checkpoint_name(fraction) for fraction in self.checkpoints)


class Evaluate(Section):
    batch_size: Count


class Attribution(Section):
    basis: Literal["neurons"]
    engine: Literal["circuit-tracer"]
    discovery_prompts_per_word: Count
    control_prompts: Count
    feature_nodes: Count = Field(description="neurons expanded per graph")
    batch_size: Count = Field(description="target rows per backward pass")
    node_threshold: Fraction
    edge_threshold: Fraction


class Compare(Section):
    top_nodes: Count


class Report(Section):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap_samples: Count
    seed: Seed


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


def read_yaml(path: Path) -> Any:
    """Parse YAML 1.2 (as DVC does), so that 5e-4 is a number and object tags are refused.

    Raises:
        InputError: if the file is missing or is not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = Problem(
            where=str(path),
            got="no such file",
            rule="the study reads it from the repository's root",
            remedy="run in the root of the repository, or restore it with `git checkout`",
        )
        raise InputError(problem) from None
    except YAMLError as error:
        problem = Problem(
            where=str(path), got=str(error), rule="must be YAML", remedy="mend the line named"
        )
        raise InputError(problem) from None


def validate(model: type[Any], value: Any, source: str) -> Any:
    """``model.model_validate(value)`` with errors in the project's words."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [_problem(model, detail, source) for detail in error.errors()]
        raise InputError(*problems) from None


def _problem(model: type[BaseModel], detail: ErrorDetails, source: str) -> Problem:
    location = [str(part) for part in detail["loc"]]
    where = f"{source}: {'.'.join(location)}" if location else source
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys_beside(model, location)
        close = difflib.get_close_matches(location[-1], known, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"remove it; known: {', '.join(known)}"
        return Problem(where, detail["input"], "no such key", remedy)
    if kind == "missing":
        return Problem(where, "nothing", "the key is required", "add it, see git's params.yaml")
    rule = detail["msg"].removeprefix("Value error, ")
    rule = rule[0].lower() + rule[1:]
    description = _description(model, location)
    remedy = f"set it to a value that fits ({description})" if description else "set it accordingly"
    return Problem(where, detail["input"], rule, remedy)


def _keys_beside(model: type[BaseModel], location: list[str]) -> list[str]:
    parent = _descend(model, location[:-1])
    return sorted(parent.model_fields) if parent else []


def _description(model: type[BaseModel], location: list[str]) -> str | None:
    for depth in range(len(location), 0, -1):
        parent = _descend(model, location[: depth - 1])
        if parent and location[depth - 1] in parent.model_fields:
            return parent.model_fields[location[depth - 1]].description
    return None


def _descend(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    for key in location:
        field = model.model_fields.get(key)
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, BaseModel)
        ):
            return None
        model = field.annotation
    return model
