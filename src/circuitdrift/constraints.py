"""data/constraints.yaml as frozen models, and the held-out prompts that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from circuitdrift.constraint_rules import broken_rules, placeholders
from circuitdrift.dataset import Prompt
from circuitdrift.errors import InputError
from circuitdrift.unrelated_rules import broken_unrelated_rules
from circuitdrift.validation import read_yaml, validate

TemplatedRole = Literal["discovery", "evaluation", "unseen", "reverse"]
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


class Unrelated(_Entry):
    """Plain sentences, written as templates and lists of words to fill them with."""

    words: dict[str, Texts] = Field(
        description="lists of words, each with a name, such as {tree: [oak, willow]}"
    )
    sentences: Texts = Field(
        description="a list of sentences with names of such lists in braces, such as "
        "The {tree} is green"
    )

    def filled(self, sentence: str) -> list[str]:
        """``sentence`` with every combination of the words of the lists that it names."""
        names = placeholders(sentence) or []
        combinations = product(*(self.words[name] for name in names))
        return [sentence.format(**dict(zip(names, words, strict=True))) for words in combinations]


class Constraints(_Entry):
    """All of data/constraints.yaml."""

    types: Annotated[dict[str, ConstraintType], Field(min_length=1)] = Field(
        description="one entry per constraint type, each with words and templates"
    )
    unseen_words: Texts = Field(description="a list of words that are never trained")
    control: Annotated[tuple[Control, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of entries such as {prompt: Once upon a, continuation: time}"
    )
    unrelated: Unrelated = Field(
        description="words and sentences that have nothing to do with the constraints"
    )


def load_constraints(path: Path) -> Constraints:
    """Read and check data/constraints.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    constraints: Constraints = validate(Constraints, read_yaml(path), source=path.name)
    problems = [
        *broken_rules(constraints, path.name),
        *broken_unrelated_rules(constraints, path.name),
    ]
    if problems:
        raise InputError(*problems)
    return constraints


def make_prompts(constraints: Constraints) -> list[Prompt]:
    """Every prompt, ordered by role, type, word and template as data/constraints.yaml has them."""
    return [
        *_templated_prompts(constraints, "discovery"),
        *_templated_prompts(constraints, "evaluation"),
        *_control_prompts(constraints),
        *_templated_prompts(constraints, "unseen"),
        *_templated_prompts(constraints, "reverse"),
    ]


def _templated_prompts(constraints: Constraints, role: TemplatedRole) -> Iterator[Prompt]:
    for name, type_ in constraints.types.items():
        for word, answer, others in _questions(type_, role, constraints.unseen_words):
            about = f"{name}-{word}"
            stem = f"{about}-{role}" if role in ("discovery", "evaluation") else f"{role}-{about}"
            for index, template in enumerate(getattr(type_, role)):
                yield Prompt(
                    id=f"{stem}-{index}",
                    role=role,
                    type=name,
                    word=word,
                    template=template,
                    text=template.format(word=word, meaning=type_.words.get(word)),
                    answer=answer,
                    others=others,
                )


def _questions(
    type_: ConstraintType, role: TemplatedRole, unseen_words: Iterable[str]
) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Each word that prompts of ``role`` are about, its right answer, and the other answers."""
    words, meanings = tuple(type_.words), tuple(type_.words.values())
    if role == "unseen":
        yield from ((word, None, meanings) for word in unseen_words)
    elif role == "reverse":
        yield from ((word, word, _others(word, words)) for word in words)
    else:
        for word, meaning in type_.words.items():
            yield word, meaning, _others(meaning, meanings)


def _others(one: str, among: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(other for other in among if other != one)


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
