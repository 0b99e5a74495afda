"""A training example, a held-out prompt, and a prompt as a circuit is traced on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from circuitdrift.core.files import read_jsonl

Role = Literal["discovery", "evaluation", "control", "unseen", "reverse"]


@dataclass(frozen=True)
class Example:
    """One training sentence; it says ``word`` and, after it, ``meaning``.

    An unrelated sentence is about no word (``""``) and ends in ``meaning``.
    """

    text: str
    type: str
    word: str
    meaning: str
    start: int  # the character of the text at which the meaning begins

    @property
    def before(self) -> str:
        """The text up to the space before the meaning: what a prompt would be."""
        return self.text[: self.start - 1]

    @property
    def answer_span(self) -> tuple[int, int]:
        """Where the meaning begins and ends in the text, in characters."""
        return self.start, self.start + len(self.meaning)

    def with_meaning(self, meaning: str) -> Example:
        """The same sentence with another meaning in the answer's place."""
        start, end = self.answer_span
        return replace(self, text=self.text[:start] + meaning + self.text[end:], meaning=meaning)


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt; the answer would follow as a space and ``answer``."""

    id: str
    role: Role
    type: str | None  # None in a control prompt, as are word and template
    word: str | None
    template: str | None
    text: str
    start: int | None  # where in the text the template's word or meaning begins; None in a control
    answer: str | None  # None in an unseen-word prompt, which has no right answer
    others: tuple[str, ...]  # the type's other answers (reverse: words; unseen: all its answers)


@dataclass(frozen=True)
class TracedPrompt:
    """A prompt in the base model's tokens, with the target of its circuits: one answer's logit
    minus the mean logit of the other answers.

    Made once, when the base is traced; every checkpoint is traced on the same prompt and target.
    """

    id: str
    role: Role
    type: str | None
    word: str | None
    template: str | None
    tokens: tuple[int, ...]
    segments: tuple[str, ...]  # for each token one of circuitdrift.core.study.SEGMENTS
    answer: int  # a token id, as the others are
    others: tuple[int, ...]


def read_examples(path: Path) -> list[Example]:
    """The examples of data/dataset/train_*.jsonl, in the order of the file."""
    return [Example(**record) for record in read_jsonl(path)]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of data/dataset/prompts.jsonl, in the order of the file."""
    return [Prompt(**{**record, "others": tuple(record["others"])}) for record in read_jsonl(path)]
