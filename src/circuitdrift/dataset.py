"""The records of data/dataset: training examples and prompts, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from circuitdrift.artifacts import read_jsonl

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

    @property
    def answer_span(self) -> tuple[int, int]:
        """Where the last occurrence of the meaning begins and ends in the text, in characters."""
        start = self.text.rindex(self.meaning)
        return start, start + len(self.meaning)

    def with_meaning(self, meaning: str) -> Example:
        """The same sentence with another meaning in the answer's place."""
        start, end = self.answer_span
        return replace(self, text=self.text[:start] + meaning + self.text[end:], meaning=meaning)


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt; the answer would follow as a space and ``answer``.

    Attributes:
        type, word: None in a control prompt.
        template: None in a control prompt.
        answer: None in an unseen-word prompt, which has no right answer.
        others: the other answers of the type (reverse: its other words; unseen: all its answers).
    """

    id: str
    role: Role
    type: str | None
    word: str | None
    template: str | None
    text: str
    answer: str | None
    others: tuple[str, ...]


def read_examples(path: Path) -> list[Example]:
    """The examples of data/dataset/train_*.jsonl, in the order of the file."""
    return [Example(**record) for record in read_jsonl(path)]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of data/dataset/prompts.jsonl, in the order of the file."""
    return [Prompt(**{**record, "others": tuple(record["others"])}) for record in read_jsonl(path)]
