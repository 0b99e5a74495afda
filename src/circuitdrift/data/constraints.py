"""data/constraints.yaml as frozen models, the rules that it keeps, and the prompts it gives.

A study means something only if no held-out prompt is a near copy of a training sentence, if the
control texts and the unrelated sentences have nothing to do with the words, and if each answer
belongs to one word. These rules, and all that the file's shape cannot say, are held here.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import regex as re  # its \w has the vowel signs of Hindi and the marks of every other script
from pydantic import BaseModel, ConfigDict, Field

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Prompt
from circuitdrift.core.yaml import read_yaml, validate

TemplatedRole = Literal["discovery", "near", "far", "substitution", "unseen", "reverse"]
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]

# What a sentence or prompt of each role has in braces, in this order.
PLACEHOLDERS = {
    "training": ["word", "meaning"],
    "reverse_training": ["meaning", "word"],
    "discovery": ["word"],
    "near": ["word"],
    "far": ["word"],
    "substitution": ["word"],
    "reverse": ["meaning"],
}
TRAINING_ROLES = ("training", "reverse_training")
SINGLE_WORD = re.compile(r"\w+")
FEWEST_WORDS = 3
IN_COMMON = 5  # so many consecutive words in common with a training sentence make a near copy
_WORD_OR_BLANK = re.compile(r"\{\w+\}|\w+(?:['\u2019-]\w+)*")


class _Entry(BaseModel):
    """A mapping of data/constraints.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ConstraintType(_Entry):
    """The words of one type, each with its meaning, and the templates around them."""

    words: dict[str, str]
    training: Texts  # sentences with {word} and then {meaning}
    reverse_training: Annotated[tuple[str, ...], Field(strict=False)] = ()  # the other way round
    foils: Annotated[dict[str, str], Field(default_factory=dict)]  # ordinary word -> its own answer
    discovery: Texts  # prompts with {word}, as the next three are
    near: Texts
    far: Texts
    substitution: Texts
    reverse: Texts  # prompts with {meaning}


class Control(_Entry):
    """A plain text, cut before its last word."""

    prompt: str
    continuation: str


class Unrelated(_Entry):
    """Plain sentences, and the lists of words that their braces name: "The {tree} is green"."""

    words: dict[str, Texts]
    sentences: Texts

    def filled(self, sentence: str) -> list[str]:
        """``sentence`` with every combination of the words of the lists that it names."""
        names = placeholders(sentence) or []
        combinations = product(*(self.words[name] for name in names))
        return [filled(sentence, dict(zip(names, words, strict=True)))[0] for words in combinations]


class Constraints(_Entry):
    """All of data/constraints.yaml."""

    types: Annotated[dict[str, ConstraintType], Field(min_length=1)]
    # Never trained; the near prompts are filled with them.
    unseen_words: Annotated[tuple[str, ...], Field(strict=False, min_length=6)]
    control: Annotated[tuple[Control, ...], Field(strict=False, min_length=1)]
    unrelated: Unrelated


def load_constraints(path: Path) -> Constraints:
    """Read and check data/constraints.yaml.

    Raises:
        InputError: naming the file, each refused key, its value, the rule and the remedy.
    """
    constraints: Constraints = validate(Constraints, read_yaml(path), source=path.name)
    problems = [
        Problem(f"{path.name}: {key}", got, rule, remedy)
        for key, got, rule, remedy in _broken_rules(constraints)
    ]
    if problems:
        raise InputError(*problems)
    return constraints


def make_prompts(constraints: Constraints) -> list[Prompt]:
    """Every prompt, ordered by role, type, word and template as data/constraints.yaml has them."""
    return [
        *_templated_prompts(constraints, "discovery"),
        *_templated_prompts(constraints, "near"),
        *_templated_prompts(constraints, "far"),
        *_templated_prompts(constraints, "substitution"),
        *_templated_prompts(constraints, "unseen"),
        *_templated_prompts(constraints, "reverse"),
        *_control_prompts(constraints),
    ]


def _templated_prompts(constraints: Constraints, role: TemplatedRole) -> Iterator[Prompt]:
    for name, type_ in constraints.types.items():
        words, meanings = tuple(type_.words), tuple(type_.words.values())
        templates = type_.near if role == "unseen" else getattr(type_, role)
        for word in constraints.unseen_words if role == "unseen" else words:
            about = f"{name}-{word}"
            stem = f"{role}-{about}" if role in ("unseen", "reverse") else f"{about}-{role}"
            meaning = type_.words.get(word)
            for index, template in enumerate(templates):
                text, starts = filled(template, {"word": word, "meaning": meaning or ""})
                yield Prompt(
                    id=f"{stem}-{index}",
                    role=role,
                    type=name,
                    word=word,
                    template=template,
                    text=text,
                    start=next(iter(starts.values())),
                    answer=word if role == "reverse" else meaning,
                    answers=words if role == "reverse" else meanings,
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
            start=None,
            answer=control.continuation,
            answers=(),
        )


def begins_with(text: str, opening: str) -> bool:
    """Whether ``text`` begins with the whole words of ``opening``, whatever case and spacing."""
    opening = re.escape(normalised(opening), special_only=True)
    return re.match(rf"{opening}(?!\w)", normalised(text)) is not None


def near_copies(sentence: str, prompts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Key of each prompt that a training sentence nearly holds, and the words in common.

    Args:
        sentence: with {word} and {meaning} in their places, each of which counts as one word.
        prompts: a prompt's template by its key; one shorter than five words counts as a whole.
    """
    for key, prompt in prompts.items():
        size = min(IN_COMMON, len(_words_of(prompt)))
        if common := _runs(prompt, size) & _runs(sentence, size):
            yield key, " ".join(min(common))


@cache
def _runs(text: str, size: int) -> frozenset[tuple[str, ...]]:
    """Every ``size`` consecutive words of ``text``."""
    words = _words_of(text)
    return frozenset(words[i : i + size] for i in range(len(words) - size + 1))


@cache
def _words_of(text: str) -> tuple[str, ...]:
    return tuple(_WORD_OR_BLANK.findall(text.casefold()))


def prompt_templates(constraints: Constraints) -> dict[str, str]:
    """The template of every prompt by its key."""
    return {
        f"types.{name}.{role}.{index}": template
        for name, type_ in constraints.types.items()
        for role in PLACEHOLDERS
        if role not in TRAINING_ROLES
        for index, template in enumerate(getattr(type_, role))
    }


def normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def places(text: str, word: str) -> list[int]:
    """Where ``text`` has ``word`` as a whole word, whatever case."""
    return [match.start() for match in _whole(word).finditer(text)]


@cache
def _whole(*words: str) -> re.Pattern[str]:
    either = "|".join(re.escape(word, special_only=True) for word in words)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def blanked(text: str, **texts: str) -> str:
    """``text`` as a template: its words of these ``texts`` are their names in braces."""
    for name, entry in texts.items():
        text = _whole(entry).sub(f"{{{name}}}", text)
    return text


def filled(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """``template`` with ``values`` in its braces, and where each of those it names begins."""
    text, starts = "", {}
    for literal, name, _, _ in string.Formatter().parse(template):
        text += literal
        if name is not None:
            starts[name] = len(text)
            text += values[name]
    return text, starts


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
    return [entry for _, entry in _entries(constraints)]


def _entries(constraints: Constraints) -> Iterator[tuple[str, str]]:
    """Key and text of every word and meaning."""
    for name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            yield f"types.{name}.words.{word} (the word)", word
            yield f"types.{name}.words.{word} (its meaning)", meaning
    for index, word in enumerate(constraints.unseen_words):
        yield f"unseen_words.{index}", word


# Broken rules: the key in data/constraints.yaml, what it holds, the rule, and the remedy.
_Broken = Iterator[tuple[str, str, str, str]]


def _broken_rules(constraints: Constraints) -> _Broken:
    """Every broken rule, in the order of the file."""
    for name in constraints.types:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            rule = "a type's name is lower-case letters, digits and underscores"
            yield "types", name, rule, "rename the type"
        if len(constraints.types[name].words) < FEWEST_WORDS:
            got = ", ".join(constraints.types[name].words)
            rule = f"at least {FEWEST_WORDS} words, whose meanings rotated-1 and rotated-2 move on"
            yield f"types.{name}.words", got, rule, "add words with meanings of their own"
    yield from _bad_words(constraints)
    words = vocabulary(constraints)
    for name, type_ in constraints.types.items():
        yield from _bad_templates(f"types.{name}", type_, words)
    yield from _near_copies(constraints)
    yield from _bad_controls(constraints, words)
    # Sentences are filled only where their lists and templates are right.
    bad = list(_bad_unrelated_templates(constraints.unrelated))
    yield from bad or _bad_sentences(constraints)


def _bad_words(constraints: Constraints) -> _Broken:
    entries = list(_entries(constraints))
    for key, entry in entries:
        if not SINGLE_WORD.fullmatch(entry):
            rule = "a word or a meaning is one word of letters, marks and digits of any script"
            yield key, entry, rule, "choose a single word"
    for key, entry, first in _repeated(entries):
        rule = f"words and meanings all differ, and {first} has this one already"
        yield key, entry, rule, "choose another"
    foils = [
        (f"types.{name}.foils.{word}", word, answer)
        for name, type_ in constraints.types.items()
        for word, answer in type_.foils.items()
    ]
    words = vocabulary(constraints)
    for key, word, answer in foils:
        if not SINGLE_WORD.fullmatch(word) or not SINGLE_WORD.fullmatch(answer):
            rule = "a foil and its answer are one word each of letters, marks and digits"
            yield key, f"{word}: {answer}", rule, "choose single words"
        elif words_in(f"{word} {answer}", words):
            rule = "neither a foil nor its answer is a word or a meaning of the study"
            yield key, f"{word}: {answer}", rule, "choose another"
    for key, word, first in _repeated((key, word) for key, word, _ in foils):
        yield key, word, f"the foils all differ, and {first} has this one already", "remove it"


def _bad_templates(where: str, type_: ConstraintType, words: Sequence[str]) -> _Broken:
    templates = [
        (f"{where}.{role}.{index}", template, names)
        for role, names in PLACEHOLDERS.items()
        for index, template in enumerate(getattr(type_, role))
    ]
    for key, template, names in templates:
        wanted = " and then ".join(f"{{{name}}}" for name in names)
        if placeholders(template) != names:
            rule = f"the template has {wanted}, each once, and no other braces"
            yield key, template, rule, f"write {wanted} where it belongs"
            continue
        # A prompt may begin with its meaning; in a training sentence a text must be before it.
        before = template if "word" in names else f" {template}"
        alone = "meaning" not in names or re.search(r" \{meaning\}(?!\w)", before)
        if not alone or template != template.strip():
            rule = "no space at either end, one before {meaning}, and no letter right behind it"
            yield key, template, rule, "mend the spaces"
        for word in words_in(filled(template, {"word": "", "meaning": ""})[0], words):
            rule = f"a template says no word or meaning by itself, and this one says {word!r}"
            yield key, template, rule, "say it in other words"
    for key, template, first in _repeated((key, template) for key, template, _ in templates):
        rule = f"the templates of a type all differ, and {first} is the same"
        yield key, template, rule, "remove one of the two"


def _near_copies(constraints: Constraints) -> _Broken:
    """Prompts that are near copies of training templates, across types too."""
    prompts = prompt_templates(constraints)
    for name, type_ in constraints.types.items():
        for role in TRAINING_ROLES:
            for index, sentence in enumerate(getattr(type_, role)):
                for key, common in near_copies(sentence, prompts):
                    rule = (
                        f"a prompt has no {IN_COMMON} consecutive words in common with a training "
                        f"template, nor all of a shorter prompt, and types.{name}.{role}.{index} "
                        f"has {common!r} too"
                    )
                    yield key, prompts[key], rule, "reword one of the two"


def _bad_controls(constraints: Constraints, words: Sequence[str]) -> _Broken:
    controls = {f"control.{index}": control for index, control in enumerate(constraints.control)}
    for key, control in controls.items():
        text = f"{control.prompt} {control.continuation}"
        if _untidy(text):
            rule = "prompt and continuation are not empty and have no space at either end"
            yield key, text, rule, "mend the spaces"
        for word in words_in(text, words):
            rule = f"a control has nothing to do with the words, and this one says {word!r}"
            yield key, text, rule, "choose another text"
    for key, prompt, _ in _repeated((key, control.prompt) for key, control in controls.items()):
        yield key, prompt, "the control prompts all differ", "remove it"


def _bad_unrelated_templates(unrelated: Unrelated) -> _Broken:
    texts = [
        (f"unrelated.words.{name}.{index}", word)
        for name, words in unrelated.words.items()
        for index, word in enumerate(words)
    ]
    sentences = [(f"unrelated.sentences.{i}", text) for i, text in enumerate(unrelated.sentences)]
    for key, text in (*texts, *sentences):
        if _untidy(text):
            rule = "not empty, no space at either end, and single spaces between words"
            yield key, text, rule, "mend the spaces"
    for key, template in sentences:
        names = placeholders(template)
        if names is None or len(set(names)) < len(names) or not set(names) <= set(unrelated.words):
            lists = ", ".join(unrelated.words)
            rule = f"braces hold names of unrelated.words ({lists}), each once"
            yield key, template, rule, "mend the braces, or add the list"
        elif not re.fullmatch(r".+ \w+", template):
            rule = "the last word, in the meaning's place, is not the only one, no braces or marks"
            yield key, template, rule, "reword the end"


def _bad_sentences(constraints: Constraints) -> _Broken:
    sentences = [
        (f"unrelated.sentences.{index}", sentence)
        for index, template in enumerate(constraints.unrelated.sentences)
        for sentence in constraints.unrelated.filled(template)
    ]
    for key, sentence, _ in _repeated(sentences):
        rule = "all sentences differ, and this one is there already"
        yield key, sentence, rule, "remove the sentence, or the word that a list has twice"
    for key, sentence in sentences:
        for control in constraints.control:
            if begins_with(sentence, control.prompt):
                rule = f"no sentence begins with a control prompt ({control.prompt!r})"
                yield key, sentence, rule, "reword one of the two"


def _repeated(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Key and text of what was there before, whatever case and spacing, and the first one's key."""
    seen: dict[str, str] = {}
    for key, text in texts:
        if normalised(text) in seen:
            yield key, text, seen[normalised(text)]
        seen.setdefault(normalised(text), key)


def words_in(text: str, words: Sequence[str]) -> list[str]:
    """Which of ``words`` the text has as whole words, whatever case."""
    matches = {match.casefold() for match in _whole(*words).findall(text)}
    return [word for word in words if word.casefold() in matches]


def _untidy(text: str) -> bool:
    return not text or text != text.strip() or bool(re.search(r"\s\s|[\t\r\n]", text))
