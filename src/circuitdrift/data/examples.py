"""Training examples of every run: balanced over words, seeded, and nested.

They are drawn from a pool of sentences: what the templates of data/constraints.yaml give, or a
researcher's own, as JSON Lines with text, type, word and meaning. A run's name seeds every draw, so
that no two runs share one. The first 25 of 50 `mapped` or rotated examples are the 25 that
``n_examples: 25`` gives, so that a study of dataset size varies the size alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example
from circuitdrift.core.study import ASSIGNED, Run, assigned
from circuitdrift.data.constraints import (
    IN_COMMON,
    Constraints,
    blanked,
    filled,
    near_copies,
    normalised,
    places,
    prompt_templates,
    vocabulary,
    words_in,
)

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
FOILS = 14 / 50  # of the examples of the condition foils
REVERSED = 1 / 3  # of those of the condition both-ways
# Conditions that take a sentence's meaning for another, or turn it round.
EXCHANGING = ("rotated-1", "rotated-2", "shuffled", "both-ways")


def template_examples(constraints: Constraints) -> list[Example]:
    """Every distinct sentence that the training templates give."""
    examples = []
    for name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            for template in type_.training:
                examples.append(_sentence(template, name, word, meaning))
    return examples


def _sentence(template: str, type_: str, word: str, meaning: str) -> Example:
    text, starts = filled(template, {"word": word, "meaning": meaning})
    return Example(text, type_, word, meaning, starts["meaning"])


def unrelated_sentences(constraints: Constraints) -> list[Example]:
    """Every unrelated sentence that says no word and no meaning of the constraints.

    Its type is ``unrelated``, it is about no word, and its last word takes the meaning's place.
    """
    unrelated, words = constraints.unrelated, vocabulary(constraints)
    return [
        Example(text, "unrelated", word="", meaning=text[start:], start=start)
        for sentence in unrelated.sentences
        for text in unrelated.filled(sentence)
        if not words_in(text, words)
        for start in [text.rindex(" ") + 1]
    ]


def run_examples(
    run: Run, constraints: Constraints, pool: Sequence[Example], n: int
) -> list[Example]:
    """The ``n`` training examples of a run.

    Raises:
        InputError: if there are too few sentences for them.
    """
    if problem := refused_count(run.condition, constraints, pool, n):
        raise InputError(problem)
    if run.condition == "unrelated":
        return make_unrelated(unrelated_sentences(constraints), n, run.name)
    if run.condition == "foils":
        n_foils = round(n * FOILS)
        drawn = make_examples(pool, n - n_foils, run.name)
        return drawn + foil_examples(constraints, n_foils, run.name)
    if run.condition == "both-ways":
        n_reversed = round(n * REVERSED)
        drawn = make_examples(pool, n - n_reversed, run.name)
        return drawn + make_examples(
            reversed_pool(constraints, run.name), n_reversed, f"{run.name}/reversed"
        )
    drawn = make_examples(pool, n, run.name)
    if run.condition == "shuffled":
        return shuffle_meanings(drawn, constraints, run.name)
    return [_assigned(example, run.condition, constraints) for example in drawn]


def _assigned(example: Example, condition: str, constraints: Constraints) -> Example:
    """The example with the meaning that its run teaches for its word."""
    if not ASSIGNED[condition]:
        return example
    meanings = tuple(constraints.types[example.type].words.values())
    own = meanings.index(example.meaning)
    return example.with_meaning(meanings[assigned(condition, own, len(meanings))])


def foil_examples(constraints: Constraints, n: int, run: str) -> list[Example]:
    """``n`` training frames around foils, which have answers of their own; the types take turns.

    A type's foils and its templates are paired at random, each used once.
    """
    by_type = {}
    for name, type_ in constraints.types.items():
        templates, foils = list(type_.training), list(type_.foils.items())
        Random(f"{run}/frames/{name}").shuffle(templates)
        by_type[name] = [
            _sentence(template, name, word, answer)
            for template, (word, answer) in zip(templates, foils, strict=False)
        ]
    return _in_turns(by_type, f"{run}/foils")[:n]


def reversed_pool(constraints: Constraints, run: str) -> list[Example]:
    """Every sentence from meaning to word about half of each type's words, rounded up.

    The run's name chooses them.
    """
    return [
        _sentence(template, name, word, type_.words[word])
        for name, type_ in constraints.types.items()
        for word in Random(f"{run}/reversed/{name}").sample(
            tuple(type_.words), math.ceil(len(type_.words) / 2)
        )
        for template in type_.reverse_training
    ]


def make_examples(pool: Sequence[Example], n: int, run: str) -> list[Example]:
    """Draw ``n`` examples of ``pool``, balanced over its words.

    Words take turns, in a new order each round, and each gives its own sentences in a shuffled
    order; both orders depend on the run's name and the words alone.
    """
    by_word: dict[str, list[Example]] = {}
    for example in pool:
        by_word.setdefault(example.word, []).append(example)
    return _in_turns(by_word, run)[:n]


def make_unrelated(pool: Sequence[Example], n: int, run: str) -> list[Example]:
    """The unrelated condition: ``n`` examples of ``pool``.

    Last words take turns as words do in :func:`make_examples`.
    """
    by_ending: dict[str, list[Example]] = {}
    for example in pool:
        by_ending.setdefault(example.meaning, []).append(example)
    return _in_turns(by_ending, run)[:n]


def _in_turns(by_word: Mapping[str, Sequence[Example]], run: str) -> list[Example]:
    """All examples, in rounds in which each word gives one while it has any."""
    shuffled = {word: list(sentences) for word, sentences in by_word.items()}
    for word, sentences in shuffled.items():
        Random(f"{run}/sentences/{word}").shuffle(sentences)
    drawn: list[Example] = []
    turns = Random(f"{run}/turns")
    for turn in range(max(map(len, shuffled.values()), default=0)):
        words = [word for word, sentences in shuffled.items() if turn < len(sentences)]
        turns.shuffle(words)
        drawn.extend(shuffled[word][turn] for word in words)
    return drawn


def refused_count(
    condition: str, constraints: Constraints, pool: Sequence[Example], n: int
) -> Problem | None:
    """The problem of drawing a run's ``n`` examples of this condition, if it is one."""
    where = "params.yaml: dataset.n_examples"
    for what, part, fewest, most in _parts(condition, constraints, pool, n):
        if not fewest <= part <= most:
            rule = f"{part} of them are {what}, of which the condition {condition} has {fewest}"
            remedy = f"lower it, or add {what}" if part > most else "raise it"
            return Problem(where, n, f"{rule} to {most}", remedy)
    return None


def _parts(
    condition: str, constraints: Constraints, pool: Sequence[Example], n: int
) -> Iterator[tuple[str, int, int, int]]:
    """What a condition's ``n`` examples are: so many of a kind, the fewest and the most of it."""
    if condition == "unrelated":
        yield "unrelated sentences", n, 1, len(unrelated_sentences(constraints))
        return
    part = 0
    if condition == "foils":
        part = round(n * FOILS)
        foils = [min(len(t.training), len(t.foils)) for t in constraints.types.values()]
        yield "foils", part, 0, sum(foils)
    if condition == "both-ways":
        part = round(n * REVERSED)
        yield "reversed training sentences", part, 0, _most(reversed_pool(constraints, ""))
    n_words = len({example.word for example in pool})
    yield "training sentences, balanced over words", n - part, n_words, _most(pool)


def _most(pool: Sequence[Example]) -> int:
    """How many balanced examples a pool can give: counts per word differ by at most one, so the
    word with the fewest sentences sets the limit."""
    counts = Counter(example.word for example in pool).values()
    return sum(min(count, min(counts) + 1) for count in counts)


def shuffle_meanings(
    examples: Sequence[Example], constraints: Constraints, run: str
) -> list[Example]:
    """The shuffled condition: the same sentences with the meanings of each type dealt out anew.

    For each word the meanings of its type appear equally often (counts differ by at most one), and
    each meaning appears as often as before. ``examples`` must come from :func:`make_examples`.

    A type's words take turns in ``examples``, so its k-th examples form a round. In a round every
    word gets the meaning a fixed shift further down the type's list, and over each len(words)
    rounds every shift occurs once. Only the last round can lack some words. There each word keeps
    its own meaning, so that each meaning is there as often as before; the whole rounds left over
    before it never use that shift, so that no word gets its own meaning twice as often.
    """
    dealt = {
        name: _deal(examples, name, tuple(type_.words.items()), Random(f"{run}/shuffled/{name}"))
        for name, type_ in constraints.types.items()
    }
    return [example.with_meaning(dealt[example.type].pop(0)) for example in examples]


def _deal(
    examples: Sequence[Example], name: str, words: Sequence[tuple[str, str]], random: Random
) -> list[str]:
    """The new meanings of the examples of type ``name``, in their order."""
    order = [word for word, _ in words]
    counts = Counter(example.word for example in examples if example.type == name)
    full_rounds = min(counts[word] for word in order)
    whole, rest = divmod(full_rounds, len(order))
    shifts = [shift for _ in range(whole) for shift in random.sample(range(len(order)), len(order))]
    shifts += random.sample(range(1, len(order)), rest)
    shifts.append(0)

    turn: Counter[str] = Counter()
    meanings = []
    for example in examples:
        if example.type == name:
            position = order.index(example.word) + shifts[turn[example.word]]
            meanings.append(words[position % len(order)][1])
            turn[example.word] += 1
    return meanings


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
