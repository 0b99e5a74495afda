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

Condition = Literal["mapped", "shuffled", "unrelated"]
Fraction = Annotated[float, Field(gt=0, le=1)]
ProperFraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NoneOrMore = Annotated[int, Field(ge=0)]
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
        "one condition or more, such as [mapped, shuffled]"
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


class Compare(Section):
    top_features: Count = Field(
        description="the number of features listed per pair of checkpoints, such as 10"
    )
    thresholds: tuple[Fraction, ...] = _sequence(
        "shares of |effect| that node sets hold, such as [0.5, 0.7, 0.9]"
    )
    random_sets: Count = Field(
        description="the number of random node sets per comparison, such as 100"
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

    _each_once = field_validator("thresholds")(_distinct)


class Validation(Section):
    conditions: tuple[Condition, ...] = _sequence(
        "the conditions whose circuits are tested, such as [mapped]"
    )
    prompts_per_word: Count = Field(
        description="the number of evaluation prompts per word, such as 3"
    )
    sizes: tuple[Fraction, ...] = _sequence(
        "ascending shares of all nodes that a circuit holds, such as [0.001, 0.01, 0.1, 1.0]"
    )
    transfer_size: Fraction = Field(
        description="the share of all nodes in the circuits that change models, such as 0.02"
    )
    random_circuits: Count = Field(
        description="the number of random circuits of each size, such as 1"
    )
    ranked_nodes: Annotated[int, Field(ge=3)] = Field(
        description="the number of nodes ablated one by one per prompt, such as 32"
    )
    ranked_prompts_per_word: Count = Field(
        description="the number of evaluation prompts per word for that, such as 1"
    )
    batch_size: Count = Field(description="the number of prompts per batch, such as 32")
    seed: Seed = Field(description="the seed of random circuits, such as 0")

    _each_once = field_validator("conditions")(_distinct)

    @field_validator("sizes")
    @classmethod
    def _ascend(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError("must ascend")
        return sizes


class Statistics(Section):
    confidence: ProperFraction = Field(description="the confidence of the intervals, such as 0.95")
    bootstrap_samples: Count = Field(
        description="the number of bootstrap samples of an interval, such as 2000"
    )
    permutations: Count = Field(
        description="the most permutations of a test, exact below that, such as 10000"
    )
    seed: Seed = Field(description="the seed of bootstrap and permutations, such as 0")


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
    validation: Validation
    statistics: Statistics
    verdicts: Verdicts


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    return validate(Params, read_yaml(path), source=path.name)
