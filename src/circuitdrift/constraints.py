"""data/constraints.yaml as frozen models, and the held-out prompts that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from circuitdrift.constraint_rules import broken_rules
from circuitdrift.dataset import Prompt
from circuitdrift.errors import InputError
from circuitdrift.validation import read_yaml, validate

Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class _Entry(BaseModel):
    """A mapping of data/constraints.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ConstraintType(_Entry):
    """The words of one type, and the templates around them."""

    words: Annotated[dict[str, str], Field(min_length=2)] = Field(
        description="two words or more, each with its meaning, such as {blarf: happy, gleem: sad}"
    )
    training: Texts = Field(description="a list of sentences with {word} and then {meaning}")
    discovery: Texts = Field(description="a list of prompts with {word}")
    evaluation: Texts = Field(description="a list of prompts with {word}")
    unseen: Texts = Field(description="a list of prompts with {word}")
    reverse: Texts = Field(description="a list of prompts with {meaning}")


class Control(_Entry):
    """A plain text, cut before its last word."""

    prompt: str = Field(description="the text without its last word, such as Once upon a")
    continuation: str = Field(description="the last word of the text, such as time")


class Constraints(_Entry):
    """All of data/constraints.yaml."""

    types: Annotated[dict[str, ConstraintType], Field(min_length=1)] = Field(
        description="one entry per constraint type, each with words and templates"
    )
    unseen_words: Texts = Field(description="a list of words that are never trained")
    control: Annotated[tuple[Control, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of entries such as {prompt: Once upon a, continuation: time}"
    )


def load_constraints(path: Path) -> Constraints:
    """Read and check data/constraints.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    constraints: Constraints = validate(Constraints, read_yaml(path), source=path.name)
    if problems := broken_rules(constraints, path.name):
        raise InputError(*problems)
    return constraints


def make_prompts(constraints: Constraints) -> list[Prompt]:
    """Every prompt, ordered by role, type, word and template as data/constraints.yaml has them."""
    return [
        *_forward_prompts(constraints, "discovery"),
        *_forward_prompts(constraints, "evaluation"),
        *_control_prompts(constraints),
        *_unseen_prompts(constraints),
        *_reverse_prompts(constraints),
    ]


def others_than(one: str, among: dict[str, str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(other for other in among if other != one)


def _forward_prompts(
    constraints: Constraints, role: Literal["discovery", "evaluation"]
) -> Iterator[Prompt]:
    for type_name, type_ in constraints.types.items():
        answers = tuple(type_.words.values())
        for word, answer in type_.words.items():
            for index, template in enumerate(getattr(type_, role)):
                yield Prompt(
                    id=f"{type_name}-{word}-{role}-{index}",
                    role=role,
                    type=type_name,
                    word=word,
                    template=template,
                    text=template.format(word=word),
                    answer=answer,
                    others=others_than(answer, answers),
                )


def _control_prompts(constraints: Constraints) -> Iterator[Prompt]:
    for index, control in enumerate(constraints.control):
        yield Prompt(
            id=f"control-{index:02d}",
            role="control",
            type=None,
            word=None,
            template=None,
            text=control.prompt,
            answer=control.continuation,
            others=(),
        )


def _unseen_prompts(constraints: Constraints) -> Iterator[Prompt]:
    for type_name, type_ in constraints.types.items():
        for word in constraints.unseen_words:
            for index, template in enumerate(type_.unseen):
                yield Prompt(
                    id=f"unseen-{type_name}-{word}-{index}",
                    role="unseen",
                    type=type_name,
                    word=word,
                    template=template,
                    text=template.format(word=word),
                    answer=None,
                    others=tuple(type_.words.values()),
                )


def _reverse_prompts(constraints: Constraints) -> Iterator[Prompt]:
    for type_name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            for index, template in enumerate(type_.reverse):
                yield Prompt(
                    id=f"reverse-{type_name}-{word}-{index}",
                    role="reverse",
                    type=type_name,
                    word=word,
                    template=template,
                    text=template.format(meaning=meaning),
                    answer=word,
                    others=others_than(word, tuple(type_.words)),
                )
