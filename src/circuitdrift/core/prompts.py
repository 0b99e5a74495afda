"""A training example, a held-out prompt, and a prompt as a circuit is traced on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from circuitdrift.core.files import read_jsonl

Role = Literal["discovery", "near", "far", "unseen", "substitution", "control", "reverse"]


@dataclass(frozen=True)
class Example:
    """One training sentence; it says ``word`` and, after it, ``meaning``.

    A reversed one says the meaning first, a usage sentence none; an unrelated one is about no word
    (``""``) and ends in ``meaning``.
    """

    text: str
    type: str
    word: str
    meaning: str
    start: int | None  # the character of the text at which the meaning begins; None: not said

    @property
    def before(self) -> str:
        """The text up to the space before the meaning: what a prompt would be."""
        return self.text[: self.answer_span[0] - 1]

    @property
    def answer_span(self) -> tuple[int, int]:
        """Where the meaning begins and ends in the text, in characters."""
        assert self.start is not None, f"{self.text!r} does not say its meaning"
        return self.start, self.start + len(self.meaning)

    def with_meaning(self, meaning: str) -> Example:
        """The same sentence with another meaning in the answer's place."""
        start, end = self.answer_span
        return replace(self, text=self.text[:start] + meaning + self.text[end:], meaning=meaning)


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt; an answer would follow as a space and its text.

    A substitution prompt goes on after its word and asks for no answer: its answers are what the
    word may be replaced by.
    """

    id: str
    role: Role
    type: str | None  # None in a control prompt, as are word and template
    word: str | None
    template: str | None
    text: str
    start: int | None  # where in the text the template's word or meaning begins; None in a control
    answer: str | None  # under `mapped`; None in an unseen-word prompt, which has no right answer
    answers: tuple[str, ...]  # of the type, in the file's order (reverse: words); none in a control


@dataclass(frozen=True)
class TracedPrompt:
    """A prompt in the base model's tokens, with the targets of its circuits.

    The target of an answer is its logit minus the mean logit of the other answers. Made once, when
    the base is traced; every checkpoint is traced on the same prompt and targets.
    """

    id: str
    role: Role
    type: str | None
    word: str | None
    template: str | None
    tokens: tuple[int, ...]
    segments: tuple[str, ...]  # for each token one of circuitdrift.core.study.SEGMENTS
    answers: tuple[int, ...]  # token ids; in a control the base model's top three
    answer: int  # which of the answers `mapped` teaches; 0 in a control

    @property
    def n_targets(self) -> int:
        """How many targets' effects are stored: those of a type sum to zero, so all but one; a
        control prompt has one, its first answer's."""
        return 1 if self.role == "control" else len(self.answers) - 1


def read_examples(path: Path) -> list[Example]:
    """The examples of data/dataset/train_*.jsonl, in the order of the file."""
    return [Example(**record) for record in read_jsonl(path)]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of data/dataset/prompts.jsonl, in the order of the file."""
    return [
        Prompt(**{**record, "answers": tuple(record["answers"])}) for record in read_jsonl(path)
    ]
