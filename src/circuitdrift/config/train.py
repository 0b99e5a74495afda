"""Section ``train``: how an adapter is trained, and when it is saved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from circuitdrift.config.section import Count, Fraction, Section, sequence
from circuitdrift.identifiers import checkpoint_name


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
    checkpoints: tuple[Fraction, ...] = sequence(
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
