"""What data/constraints.yaml must keep to beyond its shape, so that the study means something."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from circuitdrift.errors import Problem

if TYPE_CHECKING:
    from circuitdrift.constraints import Constraints, ConstraintType

PLACEHOLDERS = {
    "training": ["word", "meaning"],
    "discovery": ["word"],
    "evaluation": ["word"],
    "unseen": ["word"],
    "reverse": ["meaning"],
}
HELD_OUT = ("discovery", "evaluation", "unseen", "reverse")
TYPE_NAME = re.compile(r"[a-z][a-z0-9_]*")
SINGLE_WORD = re.compile(r"\w+")


def broken_rules(constraints: Constraints, source: str) -> list[Problem]:
    """Every rule that ``constraints`` breaks, in the order of the file; ``source`` is its name."""
    return [
        *_type_names(constraints, source),
        *_distinct_words(constraints, source),
        *_templates(constraints, source),
        *_leaks(constraints, source),
        *_controls(constraints, source),
    ]


def begins_with(text: str, opening: str) -> bool:
    """Whether ``text`` begins with the whole words of ``opening``, whatever case and spacing."""
    text, opening = normalised(text), normalised(opening)
    return text.startswith(opening) and not text[len(opening) : len(opening) + 1].isalnum()


def normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def says(text: str, word: str) -> bool:
    """Whether ``text`` has ``word`` as a whole word, whatever case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def placeholders(template: str) -> list[str] | None:
    """The names in braces, in order; None where a brace is left open or asks for a format."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return None
    if any(spec or conversion for _, _, spec, conversion in parts):
        return None
    return [name for _, name, _, _ in parts if name is not None]


def vocabulary(constraints: Constraints) -> list[str]:
    """Every word, unseen ones too, and every meaning."""
    return [entry for _, entry in _entries(constraints, source="")]


def _type_names(constraints: Constraints, source: str) -> Iterator[Problem]:
    for name in constraints.types:
        if not TYPE_NAME.fullmatch(name):
            yield Problem(
                where=f"{source}: types",
                got=name,
                rule="a type's name is lower-case letters, digits and underscores",
                remedy="rename the type",
            )


def _distinct_words(constraints: Constraints, source: str) -> Iterator[Problem]:
    """Words and meanings are single words, and no two of them are the same."""
    owners: dict[str, str] = {}
    for place, entry in _entries(constraints, source):
        if not SINGLE_WORD.fullmatch(entry):
            yield Problem(
                where=place,
                got=entry,
                rule="a word or a meaning is one word of letters and digits",
                remedy="choose a single word",
            )
        owner = owners.setdefault(entry.casefold(), place)
        if owner != place:
            yield Problem(
                where=place,
                got=entry,
                rule=f"words and meanings all differ, and {owner} has this one already",
                remedy="choose another",
            )


def _entries(constraints: Constraints, source: str) -> Iterator[tuple[str, str]]:
    for name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            key = f"{source}: types.{name}.words.{word}"
            yield f"{key} (the word)", word
            yield f"{key} (its meaning)", meaning
    for index, word in enumerate(constraints.unseen_words):
        yield f"{source}: unseen_words.{index}", word


def _templates(constraints: Constraints, source: str) -> Iterator[Problem]:
    words = vocabulary(constraints)
    for name, type_ in constraints.types.items():
        seen: dict[str, str] = {}
        for key, template in _templates_of(type_):
            where = f"{source}: types.{name}.{key}"
            role = key.partition(".")[0]
            yield from _template(where, template, PLACEHOLDERS[role], words)
            first = seen.setdefault(normalised(template), key)
            if first != key:
                yield Problem(
                    where=where,
                    got=template,
                    rule=f"the templates of a type all differ, and {first} is the same",
                    remedy="remove one of the two",
                )


def _templates_of(type_: ConstraintType) -> Iterator[tuple[str, str]]:
    for role in PLACEHOLDERS:
        for index, template in enumerate(getattr(type_, role)):
            yield f"{role}.{index}", template


def _template(
    where: str, template: str, names: list[str], words: Iterable[str]
) -> Iterator[Problem]:
    wanted = " and then ".join(f"{{{name}}}" for name in names)
    if placeholders(template) != names:
        yield Problem(
            where=where,
            got=template,
            rule=f"the template has {wanted}, each once, and no other braces",
            remedy=f"write {wanted} where it belongs",
        )
        return
    if template != template.strip() or ("meaning" in names and " {meaning}" not in f" {template}"):
        yield Problem(
            where=where,
            got=template,
            rule="no space at either end, and one before {meaning}: it is read with its space",
            remedy="mend the spaces",
        )
    for entry in words:
        if says(template.format(word="", meaning=""), entry):
            yield Problem(
                where=where,
                got=template,
                rule=f"a template says no word or meaning by itself, and this one says {entry!r}",
                remedy="say it in other words",
            )


def _leaks(constraints: Constraints, source: str) -> Iterator[Problem]:
    """No training sentence gives away the answer of a held-out prompt, across types too."""
    held_out = [
        (f"types.{name}.{role}.{index}", template)
        for name, type_ in constraints.types.items()
        for role in HELD_OUT
        for index, template in enumerate(getattr(type_, role))
    ]
    for name, type_ in constraints.types.items():
        for index, sentence in enumerate(type_.training):
            for key, template in held_out:
                if begins_with(sentence, template):
                    yield Problem(
                        where=f"{source}: types.{name}.training.{index}",
                        got=sentence,
                        rule=f"no training template begins with a held-out one ({key})",
                        remedy="remove or reword one of the two",
                    )


def _controls(constraints: Constraints, source: str) -> Iterator[Problem]:
    words = vocabulary(constraints)
    seen: set[str] = set()
    for index, control in enumerate(constraints.control):
        where = f"{source}: control.{index}"
        text = f"{control.prompt} {control.continuation}"
        if not control.prompt or not control.continuation or text != " ".join(text.split()):
            yield Problem(
                where=where,
                got=text,
                rule="prompt and continuation are not empty and have no space at either end",
                remedy="mend the spaces",
            )
        if normalised(control.prompt) in seen:
            yield Problem(
                where=where,
                got=control.prompt,
                rule="the control prompts all differ",
                remedy="remove it",
            )
        seen.add(normalised(control.prompt))
        for entry in words:
            if says(text, entry):
                yield Problem(
                    where=where,
                    got=text,
                    rule=f"a control has nothing to do with the words, and this one says {entry!r}",
                    remedy="choose another text",
                )
