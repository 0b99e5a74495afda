"""What the unrelated sentences of data/constraints.yaml must keep to beyond their shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from circuitdrift.constraint_rules import (
    SINGLE_WORD,
    begins_with,
    normalised,
    placeholders,
)
from circuitdrift.errors import Problem

if TYPE_CHECKING:
    from circuitdrift.constraints import Constraints


def broken_unrelated_rules(constraints: Constraints, source: str) -> list[Problem]:
    """Every rule that the unrelated sentences break, in the order of the file.

    Sentences are filled only where their lists and templates are right.
    """
    where = f"{source}: unrelated"
    problems = [*_texts(constraints, where), *_templates(constraints, where)]
    return problems or list(_sentences(constraints, where))


def _texts(constraints: Constraints, where: str) -> Iterator[Problem]:
    """Nothing is empty, and words stand one space apart."""
    unrelated = constraints.unrelated
    texts = {
        f"words.{name}.{index}": word
        for name, words in unrelated.words.items()
        for index, word in enumerate(words)
    }
    texts |= {f"sentences.{index}": text for index, text in enumerate(unrelated.sentences)}
    for key, text in texts.items():
        if not text or text != " ".join(text.split()):
            yield Problem(
                where=f"{where}.{key}",
                got=text,
                rule="not empty, no space at either end, and single spaces between words",
                remedy="mend the spaces",
            )


def _templates(constraints: Constraints, where: str) -> Iterator[Problem]:
    """Templates name lists that there are, and end in a plain word."""
    lists = constraints.unrelated.words
    for index, template in enumerate(constraints.unrelated.sentences):
        names = placeholders(template)
        if names is None or len(set(names)) < len(names) or not set(names) <= set(lists):
            yield Problem(
                where=f"{where}.sentences.{index}",
                got=template,
                rule=f"braces hold names of unrelated.words ({', '.join(lists)}), each once",
                remedy="mend the braces, or add the list",
            )
        elif not SINGLE_WORD.fullmatch(template.rpartition(" ")[2]):
            yield Problem(
                where=f"{where}.sentences.{index}",
                got=template,
                rule="the last word, which takes the meaning's place, is plain: no braces or marks",
                remedy="reword the end",
            )


def _sentences(constraints: Constraints, where: str) -> Iterator[Problem]:
    """All sentences differ, and none begins with a control prompt."""
    seen: set[str] = set()
    for index, template in enumerate(constraints.unrelated.sentences):
        for sentence in constraints.unrelated.filled(template):
            if normalised(sentence) in seen:
                yield Problem(
                    where=f"{where}.sentences.{index}",
                    got=sentence,
                    rule="all sentences differ, and this one is there already",
                    remedy="remove the sentence, or the word that a list has twice",
                )
            seen.add(normalised(sentence))
            for control in constraints.control:
                if begins_with(sentence, control.prompt):
                    yield Problem(
                        where=f"{where}.sentences.{index}",
                        got=sentence,
                        rule=f"no sentence begins with a control prompt ({control.prompt!r})",
                        remedy="reword one of the two",
                    )
