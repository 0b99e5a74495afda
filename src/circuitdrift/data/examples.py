"""Training examples of every condition: balanced over words, seeded, and nested.

They are drawn from a pool of sentences: what the templates of data/constraints.yaml give, or a
researcher's own, as JSON Lines with text, type, word and meaning. The first 25 of 50 examples are
the 25 that ``n_examples: 25`` gives (not in the shuffled condition, which deals out all meanings
anew), so that a study of dataset size varies the size alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from pydantic import BaseModel, ConfigDict, ValidationError

from circuitdrift.core import paths
from circuitdrift.core.errors import InputError, Problem
from circuitdrift.core.prompts import Example
from circuitdrift.data.constraints import (
    Constraints,
    begins_with,
    filled,
    make_prompts,
    normalised,
    places,
    vocabulary,
    words_in,
)


class Sentence(BaseModel):
    """A line of a researcher's own file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    type: str
    word: str
    meaning: str


KEYS = ", ".join(Sentence.model_fields)


def template_examples(constraints: Constraints) -> list[Example]:
    """Every distinct sentence that the training templates give."""
    examples = []
    for name, type_ in constraints.types.items():
        for word, meaning in type_.words.items():
            for template in type_.training:
                text, starts = filled(template, {"word": word, "meaning": meaning})
                examples.append(Example(text, name, word, meaning, starts["meaning"]))
    return examples


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


def make_examples(pool: Sequence[Example], n: int, seed: int) -> list[Example]:
    """Draw ``n`` examples of ``pool``, balanced over its words.

    Words take turns, in a new order each round, and each gives its own sentences in a shuffled
    order; both orders depend on the seed and the words alone.

    Raises:
        InputError: if ``n`` is less than one example per word, or more than the pool can give.
    """
    if problem := refused_count(pool, n):
        raise InputError(problem)
    by_word: dict[str, list[Example]] = {}
    for example in pool:
        by_word.setdefault(example.word, []).append(example)
    return _in_turns(by_word, seed)[:n]


def make_unrelated(pool: Sequence[Example], n: int, seed: int) -> list[Example]:
    """The unrelated condition: ``n`` examples of ``pool``, or all where there are fewer.

    Last words take turns as words do in :func:`make_examples`.
    """
    by_ending: dict[str, list[Example]] = {}
    for example in pool:
        by_ending.setdefault(example.meaning, []).append(example)
    return _in_turns(by_ending, seed)[:n]


def _in_turns(by_word: Mapping[str, Sequence[Example]], seed: int) -> list[Example]:
    """All examples, in rounds in which each word gives one while it has any."""
    shuffled = {word: list(sentences) for word, sentences in by_word.items()}
    for word, sentences in shuffled.items():
        Random(f"{seed}/sentences/{word}").shuffle(sentences)
    drawn: list[Example] = []
    turns = Random(f"{seed}/turns")
    for turn in range(max(map(len, shuffled.values()), default=0)):
        words = [word for word, sentences in shuffled.items() if turn < len(sentences)]
        turns.shuffle(words)
        drawn.extend(shuffled[word][turn] for word in words)
    return drawn


def refused_count(pool: Sequence[Example], n: int) -> Problem | None:
    """The problem of drawing ``n`` balanced examples of ``pool``, if it is one.

    Counts per word differ by at most one, so the word with the fewest sentences sets the limit.
    """
    counts = Counter(example.word for example in pool).values()
    most = sum(min(count, min(counts) + 1) for count in counts)
    if len(counts) <= n <= most:
        return None
    return Problem(
        where="params.yaml: dataset.n_examples",
        got=n,
        rule=f"{len(counts)} to {most}: at least one example for each of the {len(counts)} words, "
        f"balanced over them, drawn from {len(pool)} distinct training sentences",
        remedy=f"set it to {most} or less, or add training sentences"
        if n > most
        else f"set it to {len(counts)} or more",
    )


def shuffle_meanings(
    examples: Sequence[Example], constraints: Constraints, seed: int
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
        name: _deal(examples, name, tuple(type_.words.items()), Random(f"{seed}/shuffled/{name}"))
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


def training_pool(examples_from: str, constraints: Constraints, root: Path) -> list[Example]:
    """Every sentence that training examples may be drawn from: the templates', or one's own.

    Args:
        examples_from: data/constraints.yaml for the templates, or a JSON Lines file, relative to
            the study's ``root``.
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
        lines = (root / name).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(
            where="params.yaml: dataset.examples_from",
            got=name,
            rule=f"a readable UTF-8 file, its path relative to the repository's root ({error})",
            remedy=f"mend the path, or set it to {paths.CONSTRAINTS.as_posix()} for its templates",
        )
        raise InputError(problem) from None
    held_out = [prompt.text for prompt in make_prompts(constraints) if prompt.role != "control"]
    examples: list[Example] = []
    problems: list[Problem] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()  # half an emoji cannot be written
            sentence = Sentence.model_validate(record)
        except ValueError as error:
            details = error.errors() if isinstance(error, ValidationError) else ()
            reasons = (
                "; ".join(": ".join((*map(str, d["loc"]), d["msg"])) for d in details) or error
            )
            rule = f"one JSON object with the keys {KEYS}, all text, and no others ({reasons})"
            broken = [(line, rule, "mend the line, or remove it")]
        else:
            broken = list(_broken_rules(sentence, constraints, held_out))
            first = first_lines.setdefault(normalised(sentence.text), number)
            if first != number:
                rule = f"every sentence is there once, and line {first} has the same"
                broken.append((sentence.text, rule, "remove the line"))
        if broken:
            problems += [Problem(f"{name}, line {number}", *rest) for rest in broken]
        else:
            (start,) = places(sentence.text, sentence.meaning)
            examples.append(Example(**sentence.model_dump(), start=start))
    missing = sorted(set(_words(constraints)) - {example.word for example in examples})
    if missing and not problems:
        problem = Problem(
            where=name,
            got=f"no sentence about {', '.join(missing)}",
            rule="the examples are balanced over all words of data/constraints.yaml",
            remedy="add sentences about them, or take the words out of data/constraints.yaml",
        )
        problems.append(problem)
    if problems:
        raise InputError(*problems)
    return examples


def _words(constraints: Constraints) -> list[str]:
    return [word for type_ in constraints.types.values() for word in type_.words]


def _broken_rules(
    sentence: Sentence, constraints: Constraints, held_out: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """What came, the rule and the remedy; what is unknown hides what would follow from it."""
    types, word, text = constraints.types, sentence.word, sentence.text
    if sentence.type not in types:
        rule = f"a type of data/constraints.yaml: {', '.join(types)}"
        yield sentence.type, rule, "mend the type, or add it there"
        return
    words = types[sentence.type].words
    if word not in words:
        rule = f"a word of the type {sentence.type}: {', '.join(words)}"
        yield word, rule, "mend the word, or add it to constraints.yaml"
        return
    meaning = words[word]
    if sentence.meaning != meaning:
        rule = f"the meaning that data/constraints.yaml gives {word}: {meaning}"
        yield sentence.meaning, rule, f"write {meaning}"
        return
    # In the shuffled condition another meaning stands there: one that stands twice would stay, and
    # a sentence about two words could be dealt the other one's.
    of_meaning, of_word = places(text, meaning), places(text, word)
    once_and_after = len(of_meaning) == 1 and bool(of_word) and of_word[0] < of_meaning[0]
    if not once_and_after or not text.startswith(f" {meaning}", of_meaning[0] - 1):
        rule = f"the text says {word!r} and after it, following a space and once, {meaning!r}"
        yield text, rule, "reword the sentence so that it does"
    others = [one for one in (*_words(constraints), *constraints.unseen_words) if one != word]
    for other in words_in(text, others):
        rule = f"a sentence about {word!r} says no other word of the study, and it says {other!r}"
        yield text, rule, "reword the sentence, or make two of it"
    for prompt in held_out:
        if begins_with(text, prompt):
            rule = f"no training sentence begins with a held-out prompt ({prompt!r})"
            yield text, rule, "reword the sentence, or remove the line"
