"""A researcher's own training sentences, as JSON Lines with text, type, word and meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from circuitdrift import paths
from circuitdrift.constraint_rules import begins_with, normalised, says
from circuitdrift.constraints import Constraints, make_prompts
from circuitdrift.dataset import Example
from circuitdrift.errors import InputError, Problem
from circuitdrift.examples import template_examples

KEYS = ("text", "type", "word", "meaning")


def training_pool(examples_from: str, constraints: Constraints, root: Path) -> list[Example]:
    """Every sentence that training examples may be drawn from: the templates', or one's own.

    Args:
        examples_from: data/constraints.yaml for the templates, or a JSON Lines file, relative to
            the study's ``root``.

    Raises:
        InputError: naming every bad line of the researcher's own file.
    """
    if Path(examples_from) == paths.CONSTRAINTS:
        return template_examples(constraints)
    return read_training_file(root, examples_from, constraints)


def read_training_file(root: Path, name: str, constraints: Constraints) -> list[Example]:
    """Read the file that ``dataset.examples_from`` names, relative to the study's ``root``.

    Raises:
        InputError: naming each bad line by file and number, or the words that no line is about.
    """
    try:
        lines = (root / name).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            where="params.yaml: dataset.examples_from",
            got=name,
            rule=f"a readable UTF-8 file, its path relative to the repository's root ({error})",
            remedy=f"mend the path, or set it to {paths.CONSTRAINTS.as_posix()} for its templates",
        )
        raise InputError(problem) from None
    if lines[-1] == "":
        lines.pop()
    held_out = [prompt.text for prompt in make_prompts(constraints) if prompt.role != "control"]
    examples: list[Example] = []
    problems: list[Problem] = []
    lines_of_texts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        example = _parse(line, where)
        found = [example] if isinstance(example, Problem) else []
        if isinstance(example, Example):
            found = list(_problems(example, where, constraints, held_out))
            first = lines_of_texts.setdefault(normalised(example.text), number)
            if first != number:
                rule = f"every sentence is there once, and line {first} has the same"
                found.append(Problem(where, example.text, rule, "remove the line"))
            examples.append(example)
        problems.extend(found)
    problems.extend(_missing_words(name, examples, constraints) if not problems else [])
    if problems:
        raise InputError(*problems)
    return examples


def _parse(line: str, where: str) -> Example | Problem:
    rule = f"one JSON object with the keys {', '.join(KEYS)}, all text, and no others"
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return Problem(where, line, f"{rule} ({error})", "mend the line, or remove it")
    if (
        not isinstance(record, dict)
        or sorted(record) != sorted(KEYS)
        or not all(isinstance(value, str) for value in record.values())
    ):
        return Problem(where, line, rule, "mend the line, or remove it")
    return Example(**record)


def _problems(
    example: Example, where: str, constraints: Constraints, held_out: Sequence[str]
) -> Iterator[Problem]:
    """What is wrong with one line; what is unknown hides what would follow from it."""
    types = constraints.types
    if example.type not in types:
        rule = f"a type of data/constraints.yaml: {', '.join(types)}"
        yield Problem(where, example.type, rule, "mend the type, or add it there")
        return
    words = types[example.type].words
    if example.word not in words:
        rule = f"a word of the type {example.type}: {', '.join(words)}"
        yield Problem(where, example.word, rule, "mend the word, or add it to constraints.yaml")
        return
    meaning = words[example.word]
    if example.meaning != meaning:
        rule = f"the meaning that data/constraints.yaml gives {example.word}: {meaning}"
        yield Problem(where, example.meaning, rule, f"write {meaning}")
        return
    if not _says_the_rule(example):
        rule = f"the text says {example.word!r} and after it, following a space, {meaning!r}"
        yield Problem(where, example.text, rule, "reword the sentence so that it does")
    for prompt in held_out:
        if begins_with(example.text, prompt):
            rule = f"no training sentence begins with a held-out prompt ({prompt!r})"
            yield Problem(where, example.text, rule, "reword the sentence, or remove the line")


def _says_the_rule(example: Example) -> bool:
    """Whether the last occurrence of the meaning is a whole word that comes after the word."""
    if example.meaning not in example.text:
        return False
    start, end = example.answer_span
    return (
        says(example.text[:start], example.word)
        and example.text[start - 1] == " "
        and not example.text[end : end + 1].isalnum()
    )


def _missing_words(
    name: str, examples: Sequence[Example], constraints: Constraints
) -> Iterator[Problem]:
    covered = {example.word for example in examples}
    wanted = [word for type_ in constraints.types.values() for word in type_.words]
    if missing := [word for word in wanted if word not in covered]:
        yield Problem(
            where=name,
            got=f"no sentence about {', '.join(missing)}",
            rule="the examples are balanced over all words of data/constraints.yaml",
            remedy="add sentences about them, or take the words out of data/constraints.yaml",
        )
