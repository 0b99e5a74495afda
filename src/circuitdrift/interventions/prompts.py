"""The prompts that circuits are tested on: tokens, segments, target, and where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuitdrift.dataset import Prompt, Role
from circuitdrift.errors import InputError, Problem
from circuitdrift.graph import Circuit


@dataclass(frozen=True)
class TargetPrompt:
    """A tokenised prompt and the target that it is read at.

    Attributes:
        type, word, template: as in the data set; None in a control prompt.
        segments: for each token one of :data:`circuitdrift.identifiers.SEGMENTS`.
        answer, others: the target's token ids.
    """

    id: str
    type: str | None
    word: str | None
    template: str | None
    tokens: tuple[int, ...]
    segments: tuple[str, ...]
    answer: int
    others: tuple[int, ...]

    @property
    def described(self) -> dict[str, str | None]:
        """The columns of a table that say which prompt this is."""
        return {"prompt": self.id, "type": self.type, "word": self.word}


def target_prompts(
    circuits: Sequence[Circuit], prompts: Mapping[str, Prompt], role: Role
) -> list[TargetPrompt]:
    """The prompts of ``role`` that have circuits, in the circuits' order.

    Args:
        prompts: of the data set, by id.
    """
    return [
        TargetPrompt(
            id=circuit.prompt,
            type=prompts[circuit.prompt].type,
            word=prompts[circuit.prompt].word,
            template=prompts[circuit.prompt].template,
            tokens=tuple(circuit.tokens),
            segments=tuple(circuit.segments),
            answer=circuit.answer,
            others=tuple(circuit.others),
        )
        for circuit in circuits
        if prompts[circuit.prompt].role == role
    ]


def first_per_word(
    prompts: Sequence[TargetPrompt], n: int, setting: str, source: str
) -> list[TargetPrompt]:
    """The first ``n`` prompts of each word, in their order.

    Args:
        setting: the key of params.yaml that asks for ``n``, for the refusal.
        source: the key that says how many prompts a word has.

    Raises:
        InputError: if a word has fewer.
    """
    by_word: dict[tuple[str | None, str | None], list[TargetPrompt]] = {}
    for prompt in prompts:
        by_word.setdefault((prompt.type, prompt.word), []).append(prompt)
    fewest = min((len(found) for found in by_word.values()), default=0)
    if fewest < n:
        raise InputError(
            Problem(
                where=f"params.yaml: {setting}",
                got=n,
                rule=f"no more than {source} gives each word, {fewest}",
                remedy=f"set {source} to {n} or more, or {setting} to {fewest} or less",
            )
        )
    return [prompt for found in by_word.values() for prompt in found[:n]]


def counterparts(prompts: Sequence[TargetPrompt]) -> list[int]:
    """Index of each prompt's counterfactual: its template with the next word of its type.

    Words follow each other as in ``prompts``, the first after the last.

    Raises:
        ValueError: if that prompt is missing, or the type has no other word.
    """
    place = {(prompt.type, prompt.word, prompt.template): i for i, prompt in enumerate(prompts)}
    words: dict[str | None, list[str | None]] = {}
    for prompt in prompts:
        of_type = words.setdefault(prompt.type, [])
        if prompt.word not in of_type:
            of_type.append(prompt.word)
    found = []
    for prompt in prompts:
        of_type = words[prompt.type]
        other = of_type[(of_type.index(prompt.word) + 1) % len(of_type)]
        key = (prompt.type, other, prompt.template)
        if other == prompt.word or key not in place:
            raise ValueError(f"{prompt.id} has no counterpart with another word of its type")
        found.append(place[key])
    return found


def aligned_positions(prompt: TargetPrompt, other: TargetPrompt) -> list[int]:
    """For each token of ``prompt`` the position of ``other`` that corresponds to it.

    What comes before the word is counted from the start, the word and what follows from the end. A
    word with fewer tokens gives its first again. So does the last token before the word: a
    tokenizer may join the space before one word to it and leave it alone before another. Where a
    prompt ends in its word, the last token is the word's.

    Raises:
        ValueError: if the prompts do not share a template.
    """
    before, other_before = (_n_before_word(one) for one in (prompt, other))
    if abs(before - other_before) > 1 or (
        prompt.segments.count("after word") != other.segments.count("after word")
    ):
        raise ValueError(f"{prompt.id} and {other.id} do not share a template")
    shift = len(other.tokens) - len(prompt.tokens)
    return [
        min(position, max(other_before - 1, 0))
        if position < before
        else max(position + shift, other_before)
        for position in range(len(prompt.tokens))
    ]


def _n_before_word(prompt: TargetPrompt) -> int:
    return prompt.segments.count("start") + prompt.segments.count("before word")
