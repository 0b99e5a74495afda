"""The sentences that training examples are drawn from: the templates' own, or a researcher's.

A researcher's are JSON Lines with text, type, word and meaning; each line is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example
from circuitdrift.data.constraints import (
    IN_COMMON,
    Constraints,
    blanked,
    near_copies,
    normalised,
    places,
    prompt_templates,
    words_in,
)
from circuitdrift.data.examples import template_examples

if TYPE_CHECKING:
    from circuitdrift.params import Params


class Sentence(BaseModel):
    """A line of a researcher's own file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    type: str
    word: str
    meaning: str


KEYS = ", ".join(Sentence.model_fields)
# Conditions that take a sentence's meaning for another, or turn it round.
EXCHANGING = ("rotated-1", "rotated-2", "shuffled", "both-ways")


def training_pool(params: Params, constraints: Constraints, root: Path) -> list[Example]:
    """Every sentence that training examples may be drawn from: the templates', or one's own.

    ``dataset.examples_from`` is the file of the constraints, for its templates, or a JSON Lines
    file, relative to the study's ``root``.
    """
    dataset = params.dataset
    if Path(dataset.examples_from) == Path(dataset.constraints):
        return template_examples(constraints)
    if dataset.examples_from.endswith((".yaml", ".yml")):
        problem = Problem(
            where="params.yaml: dataset.examples_from",
            got=dataset.examples_from,
            rule="the file of dataset.constraints, for its templates, or a JSON Lines file",
            remedy=f"set it to {dataset.constraints}",
        )
        raise InputError(problem)
    return read_training_file(root, dataset.examples_from, constraints, _why_meanings(params))


def _why_meanings(params: Params) -> str:
    """Why every sentence must say its word's meaning; empty where it need not."""
    if params.train.loss_on == "answer":
        return "train.loss_on: answer trains on it alone"
    exchanging = [name for name in params.runs.conditions if name in EXCHANGING]
    return f"{', '.join(exchanging)} put another in its place" if exchanging else ""


def read_training_file(
    root: Path, name: str, constraints: Constraints, why_meanings: str
) -> list[Example]:
    """Read the file that ``dataset.examples_from`` names, relative to the study's ``root``.

    Args:
        why_meanings: why every sentence must say its meaning; empty where usage sentences do.

    Raises:
        InputError: naming each bad line by file and number, or the words that no line is about.
    """
    prompts = prompt_templates(constraints)
    examples: list[Example] = []
    problems: list[Problem] = []
    unknown: dict[tuple[str, str], list[int]] = {}
    first_lines: dict[str, int] = {}
    for number, line in _lines(root, name):
        try:
            sentence = _sentence_of(line)
        except ValueError as error:
            rule = f"one JSON object with the keys {KEYS}, all text, and no others ({error})"
            problems.append(
                Problem(f"{name}, line {number}", line, rule, "mend the line, or remove it")
            )
            continue
        if sentence.word not in _words(constraints):
            unknown.setdefault((sentence.type, sentence.word), []).append(number)
            continue
        broken = list(_broken_rules(sentence, constraints, prompts, why_meanings))
        first = first_lines.setdefault(normalised(sentence.text), number)
        if first != number:
            rule = f"every sentence is there once, and line {first} has the same"
            broken.append((sentence.text, rule, "remove the line"))
        problems += [Problem(f"{name}, line {number}", *rest) for rest in broken]
        examples.append(Example(**sentence.model_dump(), start=_start(sentence)))
    problems += _unknown_words(name, unknown, constraints)
    missing = sorted(set(_words(constraints)) - {example.word for example in examples})
    if missing and not problems:
        problem = Problem(
            where=name,
            got=f"no sentence about {', '.join(missing)}",
            rule="the examples are balanced over all words of the constraints",
            remedy="add sentences about them, or take the words out of dataset.constraints",
        )
        problems.append(problem)
    if problems:
        raise InputError(*problems)
    return examples


def _lines(root: Path, name: str) -> list[tuple[int, str]]:
    """Number and text of each line that is not empty."""
    try:
        lines = (root / name).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            where="params.yaml: dataset.examples_from",
            got=name,
            rule=f"a readable UTF-8 file, its path relative to the repository's root ({error})",
            remedy="mend the path, or set it to dataset.constraints for its templates",
        )
        raise InputError(problem) from None
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _sentence_of(line: str) -> Sentence:
    """A line read; a :class:`ValueError` says in words what is wrong."""
    record = json.loads(line)
    json.dumps(record, ensure_ascii=False).encode()  # half an emoji cannot be written
    try:
        return Sentence.model_validate(record)
    except ValidationError as error:
        details = (": ".join((*map(str, d["loc"]), d["msg"])) for d in error.errors())
        raise ValueError("; ".join(details)) from None


def _unknown_words(
    name: str, unknown: Mapping[tuple[str, str], Sequence[int]], constraints: Constraints
) -> Iterator[Problem]:
    """One problem for each type and word that the constraints lack, and the lines it is in."""
    for (type_, word), lines in unknown.items():
        yield Problem(
            where=f"{name}, line {lines[0]}" + f" and {len(lines) - 1} more" * (len(lines) > 1),
            got=word,
            rule=f"a word of the constraints: {', '.join(_words(constraints))}",
            remedy=f"add it with its meaning to types.{type_}.words of dataset.constraints, or "
            "mend the word",
        )


def _words(constraints: Constraints) -> list[str]:
    return [word for type_ in constraints.types.values() for word in type_.words]


def _start(sentence: Sentence) -> int | None:
    """Where the sentence says its meaning, if it does: once, behind a space, after the word."""
    text = sentence.text
    of_meaning, of_word = places(text, sentence.meaning), places(text, sentence.word)
    if len(of_meaning) != 1 or not of_word or of_word[0] > of_meaning[0]:
        return None
    return of_meaning[0] if text[of_meaning[0] - 1] == " " else None


def _broken_rules(
    sentence: Sentence, constraints: Constraints, prompts: Mapping[str, str], why_meanings: str
) -> Iterator[tuple[str, str, str]]:
    """What came, the rule and the remedy; what is unknown hides what would follow from it."""
    types, word, text = constraints.types, sentence.word, sentence.text
    if sentence.type not in types:
        rule = f"a type of the constraints: {', '.join(types)}"
        yield sentence.type, rule, "mend the type, or add it there"
        return
    words = types[sentence.type].words
    if word not in words:
        rule = f"a word of the type {sentence.type}: {', '.join(words)}"
        yield word, rule, "mend the word or the type"
        return
    meaning = words[word]
    if sentence.meaning != meaning:
        rule = f"the meaning that the constraints give {word}: {meaning}"
        yield sentence.meaning, rule, f"write {meaning}"
        return
    # Another meaning may stand there: one that stands twice would stay, and a sentence about two
    # words could be dealt the other one's.
    if why_meanings and _start(sentence) is None:
        rule = f"the text says {word!r} and after it, following a space and once, {meaning!r}"
        yield text, f"{rule}: {why_meanings}", "reword the sentence so that it does"
    elif not places(text, word):
        yield text, f"the text says {word!r}", "reword the sentence so that it does"
    others = [one for one in (*_words(constraints), *constraints.unseen_words) if one != word]
    for other in words_in(text, others):
        rule = f"a sentence about {word!r} says no other word of the study, and it says {other!r}"
        yield text, rule, "reword the sentence, or make two of it"
    for key, common in near_copies(blanked(text, word=word, meaning=meaning), prompts):
        rule = (
            f"a sentence has no {IN_COMMON} consecutive words in common with a prompt, nor all of "
            f"a shorter one, and {key} of the constraints has {common!r} too"
        )
        yield text, rule, "reword the sentence, or remove the line"
